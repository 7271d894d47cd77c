/*
 * records.h - the vocabulary between a worker's AMQP machine and the control plane.
 *
 * Owns: the record: one request of a worker to control, or one operation of control to a worker, decoded.
 * Core: plain data, used by the worker (amqp/), the dataplane's link and the control process; control/ctl_shm.h gives the
 * bytes that carry it through shared memory.
 * Spec: the methods of AMQP 0-9-1 whose outcome control decides (DESIGN: RIB and FIB).
 */
#ifndef TICKWIRE_AMQP_RECORDS_H
#define TICKWIRE_AMQP_RECORDS_H

#include <stdint.h>

struct amqp_span {
	const uint8_t *ptr;
	uint32_t len;
};

#define AMQP_RECORD_STRS 4u
#define AMQP_ID_NONE     UINT32_MAX

/*
 * Fields used by each kind are named in the lists below: id.., code, flags, s0..s3 (strings), blob.
 * Every record carries `token` and `conn_uid`: a request that wants an answer has a token other than 0; the operations that
 * control emits because of it, and the closing REPLY, carry the same token.
 */
struct amqp_record {
	uint16_t kind; /* enum amqp_record_kind */
	uint16_t code;
	uint32_t flags;
	uint64_t token;
	uint64_t conn_uid; /* connection's index in the low 32 bits, its generation above; 0: none */
	uint32_t id, id2, id3, id4;
	struct amqp_span str[AMQP_RECORD_STRS];
	struct amqp_span blob;
};

enum amqp_record_kind {
	AMQP_REC_NONE = 0,

	/* ---- requests: worker to control; answered by REPLY (code 0, or a reply code and its text in s0) ---- */
	AMQP_REQ_LOGIN = 1,        /* s0 mechanism, blob SASL response, s1 peer address text. REPLY: s1 user name */
	AMQP_REQ_OPEN,             /* s0 vhost, s1 user. REPLY: id vhost id */
	AMQP_REQ_EXCHANGE_DECLARE, /* id vhost, s0 name, s1 type, flags, blob arguments table (without its length) */
	AMQP_REQ_EXCHANGE_DELETE,  /* id vhost, s0 name, flags (IF_UNUSED) */
	AMQP_REQ_EXCHANGE_BIND,    /* id vhost, s0 destination, s1 source, s2 routing key, blob arguments */
	AMQP_REQ_EXCHANGE_UNBIND,  /* as EXCHANGE_BIND */
	AMQP_REQ_QUEUE_DECLARE,    /* id vhost, s0 name or empty, flags, blob arguments. REPLY: id queue id, s1 name */
	AMQP_REQ_QUEUE_DELETE, /* id vhost, s0 name; the worker checked if-unused and if-empty. REPLY: id queue id, NONE if missing
				*/
	AMQP_REQ_QUEUE_BIND,   /* id vhost, s0 queue, s1 exchange, s2 routing key, blob arguments */
	AMQP_REQ_QUEUE_UNBIND, /* as QUEUE_BIND */
	/* ---- notices: worker to control, token 0, no answer ---- */
	AMQP_REQ_CONN_GONE,    /* conn_uid: its exclusive queues go */
	AMQP_REQ_QUEUE_UNUSED, /* id queue: auto-delete and its last consumer went */
	AMQP_REQ_APPLIED,      /* token of a BARRIER: all before it has been applied */
	AMQP_REQ_OP_FAILED,    /* token, code, id of the object, id2 kind of the operation, s0 sentence: the FIB had no room */
	/* ---- the dump: answers to OP_DUMP; ids are those that control gave ---- */
	AMQP_REQ_DEF_EXCHANGE, /* as OP_EXCHANGE_ADD */
	AMQP_REQ_DEF_QUEUE,    /* as OP_QUEUE_ADD */
	AMQP_REQ_DEF_BINDING,  /* as OP_BIND_ADD */
	AMQP_REQ_DEF_CONN,     /* conn_uid, s0 vhost, s1 user: a connection past connection.open */
	AMQP_REQ_DUMP_END,

	/* ---- operations: control to worker ---- */
	AMQP_OP_EXCHANGE_ADD =
		64,           /* id, id2 vhost id, code enum amqp_exchange_type, flags, s0 name, s1 vhost name, blob arguments */
	AMQP_OP_EXCHANGE_DEL, /* id; its bindings have been deleted before */
	AMQP_OP_QUEUE_ADD, /* id, id2 vhost id, id3 worker that it lives on, flags, conn_uid owner of an exclusive queue, s0 name,
			      s1 vhost name, blob arguments */
	AMQP_OP_QUEUE_DEL, /* id; its bindings have been deleted before */
	AMQP_OP_BIND_ADD,  /* id binding, id2 source exchange, id3 destination, id4 rule id, flags (DEST_EXCHANGE), s0 key, blob
			      arguments */
	AMQP_OP_BIND_DEL,  /* id binding */
	AMQP_OP_REPLY,     /* token, code, s0 text, else as the request says; on DECLARE of a queue flags tell its AMQP_DEF flags */
	AMQP_OP_CONN_CLOSE,  /* conn_uid, code (320), s0 text: closed by an operator */
	AMQP_OP_QUEUE_PURGE, /* id: purged by an operator */
	AMQP_OP_DUMP,        /* tell all definitions that this worker has */
	AMQP_OP_BARRIER,     /* token: to be answered with APPLIED */
	AMQP_OP_RESET        /* forget every definition (control programs from scratch) */
};

/* flags of declarations and definitions; the low bits are those of the methods */
#define AMQP_DEF_PASSIVE       0x01u
#define AMQP_DEF_DURABLE       0x02u
#define AMQP_DEF_EXCLUSIVE     0x04u
#define AMQP_DEF_AUTO_DELETE   0x08u
#define AMQP_DEF_INTERNAL      0x10u
#define AMQP_DEF_IF_UNUSED     0x20u
#define AMQP_DEF_IF_EMPTY      0x40u
#define AMQP_DEF_DEST_EXCHANGE 0x80u
#define AMQP_DEF_DEFAULT       0x100u /* the default exchange "" of a vhost */

enum amqp_exchange_type { AMQP_DIRECT, AMQP_FANOUT, AMQP_TOPIC, AMQP_HEADERS };

#endif
