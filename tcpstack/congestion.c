/*
 * congestion.c - how much may be in the network: NewReno, CUBIC, and proportional rate reduction during recovery.
 *
 * Owns: cwnd_bytes, ssthresh_bytes, cold->cubic and the prr_ fields of a connection.
 * Core: the worker that owns the stack.
 * Spec: RFC 5681 3, RFC 9438, RFC 6937.
 */
#include "tcpstack/internal.h"

#define CWND_MAX_BYTES (1u << 29)
#define DELTA_MAX_MS   60000

/* Integer cube root: the largest r with r^3 <= x. */
static uint32_t cube_root(uint64_t x)
{
	uint64_t r = 0;
	for (int shift = 63; shift >= 0; shift -= 3) {
		r <<= 1;
		uint64_t next = 3 * r * (r + 1) + 1;
		if (x >> shift >= next) {
			x -= next << shift;
			r++;
		}
	}
	return (uint32_t)r;
}

/* RFC 9438 4.2: C * (t - K)^3 + W_max with C = 0.4, in bytes. */
static uint32_t w_cubic(const struct tcps_conn *c, uint32_t t_ms)
{
	const struct tcps_cubic *u = &c->cold->cubic;
	int64_t d = (int64_t)t_ms - u->k_ms;
	d = d > DELTA_MAX_MS ? DELTA_MAX_MS : d < -DELTA_MAX_MS ? -DELTA_MAX_MS : d;
	int64_t w = d * d * d / 1000 * 4 / 10 * c->mss / 1000000 + u->w_max_bytes;
	return w < 2 * c->mss ? 2u * c->mss : w > CWND_MAX_BYTES ? CWND_MAX_BYTES : (uint32_t)w;
}

static void begin_epoch(struct tcps_conn *c, uint32_t now_ms)
{
	struct tcps_cubic *u = &c->cold->cubic;
	u->in_epoch = true;
	u->epoch_ms = now_ms;
	u->w_est_bytes = c->cwnd_bytes;
	u->k_ms = 0;
	if (c->cwnd_bytes < u->w_max_bytes) /* K = cbrt((W_max - cwnd) / C), in seconds and segments */
		u->k_ms = cube_root((uint64_t)(u->w_max_bytes - c->cwnd_bytes) * 2500000000u / c->mss);
	else
		u->w_max_bytes = c->cwnd_bytes;
}

/* RFC 9438 4.3 to 4.5. */
static void cubic_avoid(struct tcps_conn *c, uint32_t acked)
{
	struct tcps_cubic *u = &c->cold->cubic;
	uint32_t now_ms = tcps_coarse_ms(c->t->now_ns);
	if (!u->in_epoch)
		begin_epoch(c, now_ms);
	uint32_t t_ms = now_ms - u->epoch_ms, cwnd = c->cwnd_bytes;
	/* alpha = 3 * (1 - beta) / (1 + beta) = 9 / 17, until the window of the last loss is reached again. */
	uint64_t step = (uint64_t)acked * c->mss / cwnd;
	u->w_est_bytes += (uint32_t)(u->w_est_bytes < u->w_max_bytes ? step * 9 / 17 : step);
	if (w_cubic(c, t_ms) < u->w_est_bytes) {
		if (u->w_est_bytes > cwnd)
			c->cwnd_bytes = u->w_est_bytes;
		return;
	}
	uint32_t target = w_cubic(c, t_ms + tcps_srtt_us(c) / 1000);
	target = target > cwnd + cwnd / 2 ? cwnd + cwnd / 2 : target;
	if (target > cwnd)
		c->cwnd_bytes += (uint32_t)((uint64_t)(target - cwnd) * (acked < cwnd ? acked : cwnd) / cwnd);
}

/* RFC 5681 3.1, and only while the window is what limits us: one that is not used proves nothing. */
void tcps_cc_acked(struct tcps_conn *c, uint32_t acked, uint32_t pipe_before)
{
	uint32_t mss = c->mss;
	if (pipe_before + 2 * mss < c->cwnd_bytes || c->cwnd_bytes >= CWND_MAX_BYTES)
		return;
	if (c->cwnd_bytes < c->cold->ssthresh_bytes) {
		c->cwnd_bytes += acked < 2 * mss ? acked : 2 * mss; /* RFC 3465 2.2, L = 2 */
	} else if (c->cold->cc == TCPS_CC_CUBIC) {
		cubic_avoid(c, acked);
	} else {
		uint32_t step = (uint32_t)((uint64_t)mss * (acked < c->cwnd_bytes ? acked : c->cwnd_bytes) / c->cwnd_bytes);
		c->cwnd_bytes += step == 0 ? 1 : step;
	}
}

void tcps_cc_lost(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	uint32_t flight = c->snd_max - c->snd_una, least = 2u * c->mss, half = flight / 2;
	if (cold->cc == TCPS_CC_CUBIC) {
		struct tcps_cubic *u = &cold->cubic;
		/* RFC 9438 4.7, fast convergence: below the last peak others need room. */
		uint32_t peak = c->cwnd_bytes;
		u->w_max_bytes = peak < u->w_max_bytes ? (uint32_t)((uint64_t)peak * 17 / 20) : peak;
		u->in_epoch = false;
		half = (uint32_t)((uint64_t)flight * 7 / 10);
	}
	cold->ssthresh_bytes = half > least ? half : least;
}

/* Fast recovery begins: RFC 6937 3. What is lost has been marked. */
void tcps_cc_recovery(struct tcps_conn *c)
{
	struct tcps_cold *cold = c->cold;
	TCPS_COUNT(c->t, recoveries);
	tcps_undo_begin(c, false);
	tcps_cc_lost(c);
	cold->recover_seq = c->snd_max;
	cold->prr_delivered_bytes = cold->prr_out_bytes = 0;
	cold->prr_flight_bytes = c->snd_nxt - c->snd_una;
	c->flags |= CF_RECOVERY;
	c->flags &= ~CF_TLP_OUT;
}

/* RFC 6937 3.1 with the slow-start reduction bound; the first retransmission goes out in any case. */
void tcps_cc_prr(struct tcps_conn *c, uint32_t delivered_bytes)
{
	struct tcps_cold *cold = c->cold;
	uint32_t pipe = tcps_pipe(c), ssthresh = cold->ssthresh_bytes;
	cold->prr_delivered_bytes += delivered_bytes;
	int64_t out = cold->prr_out_bytes, may;
	if (pipe > ssthresh) {
		uint64_t flight = cold->prr_flight_bytes != 0 ? cold->prr_flight_bytes : 1;
		may = (int64_t)(((uint64_t)cold->prr_delivered_bytes * ssthresh + flight - 1) / flight) - out;
	} else {
		int64_t limit = (int64_t)cold->prr_delivered_bytes - out;
		limit = (limit > (int64_t)delivered_bytes ? limit : (int64_t)delivered_bytes) + c->mss;
		may = (int64_t)ssthresh - pipe < limit ? (int64_t)ssthresh - pipe : limit;
	}
	if (out == 0 && may < c->mss)
		may = c->mss;
	c->cwnd_bytes = pipe + (may > 0 ? (uint32_t)may : 0);
}
