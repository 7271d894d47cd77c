/*
 * options.c - TCP options: parsing with the lengths checked, and those of our own SYN.
 *
 * Owns: no state.
 * Core: the worker that owns the stack.
 * Spec: RFC 9293 3.2, RFC 7323 2 and 3.
 */
#include "tcpstack/internal.h"

/*
 * Steps to the next option that has a length. Returns its kind, TCP_OPT_END after the last one, or -1 where a length
 * cannot be (RFC 9293 MUST-7: such as zero).
 */
static int next_option(const uint8_t **p, const uint8_t *end, const uint8_t **body, uint32_t *body_len)
{
	while (*p < end && **p == TCP_OPT_NOP)
		(*p)++;
	if (*p == end || **p == TCP_OPT_END)
		return (int)TCP_OPT_END;
	if (end - *p < 2 || (*p)[1] < 2 || (*p)[1] > end - *p)
		return -1;
	int kind = (*p)[0];
	*body = *p + 2;
	*body_len = (*p)[1] - 2u;
	*p += (*p)[1];
	return kind;
}

/* A second option of a kind is taken like the first would be: the last one counts. Wrong lengths of known kinds are ignored. */
bool tcps_options_parse_ts(struct tcps_seg *s)
{
	const uint8_t *p = s->opts, *end = p + s->opts_len, *body = NULL;
	uint32_t body_len = 0;
	int kind;
	while ((kind = next_option(&p, end, &body, &body_len)) > 0) {
		if (kind == (int)TCP_OPT_TIMESTAMPS && body_len == 8) {
			s->has_ts = true;
			s->ts_val = get_be32(body);
			s->ts_ecr = get_be32(body + 4);
		}
	}
	return kind == 0;
}

bool tcps_options_parse_syn(const struct tcps_seg *s, struct tcps_syn_opts *out)
{
	const uint8_t *p = s->opts, *end = p + s->opts_len, *body = NULL;
	uint32_t body_len = 0;
	int kind;
	*out = (struct tcps_syn_opts){.mss = s->peer.v6 ? TCP_MSS_DEFAULT6 : TCP_MSS_DEFAULT};
	while ((kind = next_option(&p, end, &body, &body_len)) > 0) {
		if (kind == (int)TCP_OPT_MSS && body_len == 2) {
			out->mss = get_be16(body);
		} else if (kind == (int)TCP_OPT_WSCALE && body_len == 1) {
			out->has_wscale = true;
			out->wscale = body[0] > TCP_WSCALE_MAX ? TCP_WSCALE_MAX : body[0]; /* RFC 7323 2.3 */
		} else if (kind == (int)TCP_OPT_TIMESTAMPS && body_len == 8) {
			out->has_ts = true;
			out->ts_val = get_be32(body);
			out->ts_ecr = get_be32(body + 4);
		} else if (kind == (int)TCP_OPT_SACK_OK && body_len == 0) {
			out->has_sack = true;
		}
	}
	return kind == 0;
}

unsigned tcps_options_parse_sack(const struct tcps_seg *s, struct tcps_range out[TCPS_SACK_BLOCKS_MAX])
{
	const uint8_t *p = s->opts, *end = p + s->opts_len, *body = NULL;
	uint32_t body_len = 0;
	int kind;
	while ((kind = next_option(&p, end, &body, &body_len)) > 0) {
		if (kind != (int)TCP_OPT_SACK || body_len % 8 != 0 || body_len > TCPS_SACK_BLOCKS_MAX * 8)
			continue;
		for (uint32_t i = 0; i < body_len / 8; i++)
			out[i] = (struct tcps_range){get_be32(body + 8 * i), get_be32(body + 8 * i + 4)};
		return body_len / 8;
	}
	return 0;
}

/* The layout of a Linux SYN-ACK (mss, sackOK, timestamps, nop, wscale; without one of them NOPs), which most tools expect. Returns
 * the length. */
uint32_t tcps_options_syn(const struct tcps *t, uint8_t *to, const struct tcps_syn_ask *ask)
{
	uint32_t n = 0;
	to[n++] = TCP_OPT_MSS;
	to[n++] = 4;
	put_be16(to + n, (uint16_t)(ask->v6 ? t->mss_local6 : t->mss_local));
	n += 2;
	if (ask->ts || ask->sack) {
		to[n] = ask->ts && ask->sack ? TCP_OPT_SACK_OK : TCP_OPT_NOP;
		to[n + 1] = ask->ts && ask->sack ? 2 : TCP_OPT_NOP;
		n += 2;
	}
	if (ask->ts) {
		to[n] = TCP_OPT_TIMESTAMPS;
		to[n + 1] = 10;
		put_be32(to + n + 2, ask->ts_val);
		put_be32(to + n + 6, ask->ts_ecr);
		n += 10;
	} else if (ask->sack) {
		to[n] = TCP_OPT_SACK_OK;
		to[n + 1] = 2;
		n += 2;
	}
	if (ask->wscale) {
		to[n++] = TCP_OPT_NOP;
		to[n++] = TCP_OPT_WSCALE;
		to[n++] = 3;
		to[n++] = t->rcv_wscale;
	}
	return n;
}
