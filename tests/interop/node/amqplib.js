// npm's amqplib against the broker in AMQP_HOST; prints TAP. Node's own test runner is not used: Debian's is too old for it.
'use strict';

const amqplib = require('amqplib');
const assert = require('assert');
const crypto = require('crypto');

const host = process.env.AMQP_HOST;
const port = Number(process.env.AMQP_PORT || 5672);
const MIB = crypto.randomBytes(1 << 20);
const BOUND_MS = 30000;

function connect(more) {
	return amqplib.connect({hostname: host, port, username: 'guest', password: 'guest', heartbeat: 0, ...more});
}

// Collects deliveries of a queue; take(n) resolves when n have come.
async function consumer(channel, queue, options) {
	const got = [];
	let wake = () => {};
	const {consumerTag} = await channel.consume(queue, (message) => { got.push(message); wake(); }, options);
	return {
		got,
		consumerTag,
		async take(count) {
			while (got.length < count)
				await new Promise((resolve) => { wake = resolve; });
			return got.slice(0, count);
		},
	};
}

const texts = (messages) => messages.map((message) => message.content.toString());

async function refused(promise, code) {
	try {
		await promise;
	} catch (error) {
		assert.strictEqual(error.code, code, error.message);
		return;
	}
	assert.fail(`an error ${code} was expected`);
}

// A channel whose error event is heard, so that a refusal is only the rejected promise.
async function fragile(connection) {
	const channel = await connection.createChannel();
	channel.on('error', () => {});
	return channel;
}

const tests = {
	'amqplib connects, reads the server properties and closes': async () => {
		const connection = await connect();
		assert.ok(connection.connection.serverProperties.product);
		await connection.close();
	},

	'a wrong password is refused': async () => {
		await assert.rejects(connect({password: 'wrong'}));
	},

	'direct, fanout, topic and headers exchanges route what is bound and nothing else': async () => {
		const connection = await connect();
		const channel = await connection.createChannel();
		const cases = [
			['direct', 'a.b', {}, [['a.b', {}]], [['a', {}], ['a.b.c', {}]]],
			['fanout', '', {}, [['x', {}], ['', {}]], []],
			['topic', 'a.*.#', {}, [['a.b', {}], ['a.b.c.d', {}], ['a.', {}]], [['a', {}], ['b.a', {}]]],
			['headers', '', {'x-match': 'all', venue: 'lse', lot: 5}, [['', {venue: 'lse', lot: 5, x: true}]], [['', {venue: 'lse'}], ['', {}]]],
		];
		for (const [type, bound, args, hits, misses] of cases) {
			const exchange = `amqplib-${type}-${process.pid}`;
			await channel.assertExchange(exchange, type, {durable: false});
			const {queue} = await channel.assertQueue('', {exclusive: true});
			await channel.bindQueue(queue, exchange, bound, args);
			const sink = await consumer(channel, queue, {noAck: true});
			for (const [key, headers] of misses)
				channel.publish(exchange, key, Buffer.from(`missed ${key}`), {headers});
			for (const [key, headers] of hits)
				channel.publish(exchange, key, Buffer.from(`hit ${key}`), {headers});
			assert.deepStrictEqual(texts(await sink.take(hits.length)), hits.map(([key]) => `hit ${key}`), type);
			await channel.deleteExchange(exchange);
		}
		await connection.close();
	},

	'the default exchange, consume with acknowledgement, requeue and order': async () => {
		const connection = await connect();
		const channel = await connection.createChannel();
		const {queue} = await channel.assertQueue('', {exclusive: true});
		const sink = await consumer(channel, queue, {});
		for (let i = 0; i < 100; i++)
			channel.sendToQueue(queue, Buffer.from(String(i)));
		const first = await sink.take(100);
		assert.deepStrictEqual(texts(first), [...Array(100).keys()].map(String));
		channel.ack(first[98], true);
		channel.nack(first[99], false, true);
		const again = (await sink.take(101))[100];
		assert.strictEqual(again.content.toString(), '99');
		assert.strictEqual(again.fields.redelivered, true);
		channel.ack(again);
		assert.strictEqual((await channel.checkQueue(queue)).messageCount, 0);
		await connection.close();
	},

	'consume without acknowledgement, cancel, then get': async () => {
		const connection = await connect();
		const channel = await connection.createChannel();
		const {queue} = await channel.assertQueue('', {exclusive: true});
		const sink = await consumer(channel, queue, {noAck: true});
		channel.sendToQueue(queue, Buffer.from('pushed'));
		assert.deepStrictEqual(texts(await sink.take(1)), ['pushed']);
		await channel.cancel(sink.consumerTag);
		assert.strictEqual(await channel.get(queue), false);
		channel.sendToQueue(queue, Buffer.from('pulled'));
		const message = await channel.get(queue, {noAck: true});
		assert.strictEqual(message.content.toString(), 'pulled');
		await connection.close();
	},

	'an unroutable mandatory message is returned with 312 and its body': async () => {
		const connection = await connect();
		const channel = await connection.createChannel();
		const back = new Promise((resolve) => channel.on('return', resolve));
		channel.publish('amq.direct', 'nowhere', Buffer.from('come back'), {mandatory: true});
		const message = await back;
		assert.strictEqual(message.fields.replyCode, 312);
		assert.strictEqual(message.content.toString(), 'come back');
		await connection.close();
	},

	'a confirm channel hears of each of 500 messages': async () => {
		const connection = await connect();
		const channel = await connection.createConfirmChannel();
		const {queue} = await channel.assertQueue('', {exclusive: true});
		let heard = 0;
		for (let i = 0; i < 500; i++)
			channel.sendToQueue(queue, Buffer.from(String(i)), {}, (error) => { heard += error ? 0 : 1; });
		await channel.waitForConfirms();
		assert.strictEqual(heard, 500);
		assert.strictEqual((await channel.checkQueue(queue)).messageCount, 500);
		await connection.close();
	},

	'1 MiB goes out and comes back byte for byte': async () => {
		const connection = await connect();
		const channel = await connection.createChannel();
		const {queue} = await channel.assertQueue('', {exclusive: true});
		const sink = await consumer(channel, queue, {noAck: true});
		channel.sendToQueue(queue, MIB);
		const [message] = await sink.take(1);
		assert.ok(message.content.equals(MIB), `${message.content.length} bytes came back, or others`);
		await connection.close();
	},

	'200 channels on one connection each get their own message': async () => {
		const connection = await connect({channelMax: 0});
		const channels = await Promise.all([...Array(200)].map(() => connection.createChannel()));
		await Promise.all(channels.map(async (channel, i) => {
			const {queue} = await channel.assertQueue('', {exclusive: true});
			const sink = await consumer(channel, queue, {noAck: true});
			channel.sendToQueue(queue, Buffer.from(String(i)));
			assert.deepStrictEqual(texts(await sink.take(1)), [String(i)]);
		}));
		await connection.close();
	},

	'a heartbeat of 1 s keeps an idle connection for 4 s': async () => {
		const connection = await connect({heartbeat: 1});
		let failure = null;
		connection.on('error', (error) => { failure = error; });
		await new Promise((resolve) => setTimeout(resolve, 4000));
		assert.strictEqual(failure, null);
		const channel = await connection.createChannel();
		await channel.assertQueue('', {exclusive: true});
		await connection.close();
	},

	'an abrupt disconnect gives the unacknowledged message back as redelivered': async () => {
		const keeper = await connect();
		const victim = await connect();
		victim.on('error', () => {});
		const kept = await keeper.createChannel();
		const lost = await fragile(victim);
		const {queue} = await kept.assertQueue(`amqplib-abrupt-${process.pid}`, {durable: false});
		kept.sendToQueue(queue, Buffer.from('again'));
		const before = await consumer(lost, queue, {});
		assert.strictEqual((await before.take(1))[0].fields.redelivered, false);
		victim.connection.stream.destroy();
		const after = await consumer(kept, queue, {noAck: true});
		assert.strictEqual((await after.take(1))[0].fields.redelivered, true);
		await kept.deleteQueue(queue);
		await keeper.close();
	},

	'errors are told by code: 404, 403, 406, and the connection goes on': async () => {
		const connection = await connect();
		await refused((await fragile(connection)).checkQueue(`amqplib-missing-${process.pid}`), 404);
		await refused((await fragile(connection)).assertExchange('amq.mine', 'direct'), 403);
		await refused((await fragile(connection)).assertExchange('amq.direct', 'topic'), 406);
		const channel = await connection.createChannel();
		await channel.assertQueue('', {exclusive: true});
		await connection.close();
	},
};

async function bounded(run) {
	let timer;
	const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('the test overran its bound')), BOUND_MS); });
	try {
		await Promise.race([run(), late]);
	} finally {
		clearTimeout(timer);
	}
}

async function main() {
	let number = 0, failed = 0;
	console.log(`1..${Object.keys(tests).length}`);
	for (const [sentence, run] of Object.entries(tests)) {
		number++;
		try {
			await bounded(run);
			console.log(`ok ${number} - ${sentence}`);
		} catch (error) {
			failed++;
			console.log(`not ok ${number} - ${sentence}`);
			console.log(String(error.stack || error).replace(/^/gm, '# '));
		}
	}
	// A failed test may have left a connection open; it must not keep the suite from its end.
	process.exit(failed ? 1 : 0);
}

main();
