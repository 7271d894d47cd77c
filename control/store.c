/*
 * store.c - the durable definitions, in LMDB.
 *
 * Owns: one environment, one open write transaction at most.
 * Core: control's event loop; a commit waits for the disk, which is why a batch of requests shares one.
 * Spec: see store.h. Numbers grow and are never given again.
 */
#include "control/store.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/ctl_shm.h"
#include "control/log.h"
#include "control/map.h"

#define FORMAT_TEXT       "tickwire definitions 1"
#define RESERVE_PAGES_MIN 16u

struct ctl_store {
	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *txn; /* the open write transaction, or NULL */
	uint64_t next_id, committed_next_id;
	uint8_t *scratch;
	bool told_full; /* a client that tries again and again must not fill the log as well */
};

static void key_of(uint64_t id, uint8_t out[8])
{
	for (unsigned i = 8; i-- > 0; id >>= 8)
		out[i] = (uint8_t)id;
}

static uint64_t id_of(const MDB_val *key)
{
	uint64_t id = 0;

	if (key->mv_size != 8)
		return 0;
	for (unsigned i = 0; i < 8; i++)
		id = id << 8 | ((const uint8_t *)key->mv_data)[i];
	return id;
}

static bool begin(struct ctl_store *s)
{
	int rc;

	if (s->txn != NULL)
		return true;
	rc = mdb_txn_begin(s->env, NULL, 0, &s->txn);
	if (rc != 0) {
		s->txn = NULL;
		ctl_log(CTL_LOG_ERROR, "definitions: no transaction: %s", mdb_strerror(rc));
	}
	return rc == 0;
}

static int put_raw(struct ctl_store *s, uint64_t id, const void *data, size_t len)
{
	uint8_t key[8];
	MDB_val k = {sizeof key, key}, v = {len, (void *)(uintptr_t)data};

	key_of(id, key);
	return mdb_put(s->txn, s->dbi, &k, &v, 0);
}

/* Reads the version (or writes it into a new store) and finds the highest number. */
static const char *read_format(struct ctl_store *s)
{
	uint8_t zero[8] = {0};
	MDB_val k = {sizeof zero, zero}, v;
	MDB_cursor *cur;
	int rc = mdb_get(s->txn, s->dbi, &k, &v);

	if (rc == MDB_NOTFOUND)
		rc = put_raw(s, 0, FORMAT_TEXT, strlen(FORMAT_TEXT));
	else if (rc == 0 && (v.mv_size != strlen(FORMAT_TEXT) || memcmp(v.mv_data, FORMAT_TEXT, v.mv_size) != 0))
		return "it was written by another version; use that version, or another data_dir";
	if (rc == 0 && (rc = mdb_cursor_open(s->txn, s->dbi, &cur)) == 0) {
		rc = mdb_cursor_get(cur, &k, &v, MDB_LAST);
		if (rc == 0)
			s->next_id = id_of(&k) + 1;
		mdb_cursor_close(cur);
	}
	return rc == 0 ? NULL : mdb_strerror(rc);
}

struct ctl_store *ctl_store_open(const char *dir, uint64_t bytes_max, bool sync, char *err, size_t err_bytes)
{
	struct ctl_store *s = ctl_alloc(sizeof *s);
	const char *why = NULL;
	int rc;

	if (mkdir(dir, 0750) != 0 && errno != EEXIST) {
		snprintf(err, err_bytes, "data_dir %s cannot be made: %s; make it, or name another one", dir, strerror(errno));
		free(s);
		return NULL;
	}
	rc = mdb_env_create(&s->env);
	if (rc == 0)
		rc = mdb_env_set_mapsize(s->env, (size_t)bytes_max);
	if (rc == 0)
		rc = mdb_env_open(s->env, dir, MDB_NOTLS | (sync ? 0 : MDB_NOSYNC), 0640);
	if (rc == 0 && !begin(s))
		rc = EIO;
	if (rc == 0)
		rc = mdb_dbi_open(s->txn, NULL, 0, &s->dbi);
	if (rc == 0)
		why = read_format(s);
	if (rc == 0 && why == NULL && !ctl_store_commit(s))
		why = "it could not be written";
	if (rc == 0 && why == NULL) {
		s->scratch = ctl_alloc(CTL_RECORD_MAX);
		return s;
	}
	snprintf(err, err_bytes, "the definitions in %s cannot be opened: %s", dir, why != NULL ? why : mdb_strerror(rc));
	ctl_store_close(s);
	return NULL;
}

void ctl_store_close(struct ctl_store *s)
{
	ctl_store_abort(s);
	if (s->env != NULL)
		mdb_env_close(s->env);
	free(s->scratch);
	free(s);
}

/*
 * Room for deletions and commits: both copy pages before they change them, and pages given back by the last commits are not
 * to be had at once. Data and free list are counted as the open transaction sees them.
 */
static bool has_room(struct ctl_store *s, size_t len, bool *scarce)
{
	MDB_envinfo info;
	MDB_stat data, lists;
	size_t used, pages, reserve;

	if (mdb_env_info(s->env, &info) != 0 || mdb_stat(s->txn, s->dbi, &data) != 0 || mdb_stat(s->txn, 0, &lists) != 0)
		return false;
	pages = info.me_mapsize / data.ms_psize;
	reserve = pages / 16 > RESERVE_PAGES_MIN ? pages / 16 : RESERVE_PAGES_MIN;
	used = 2 + data.ms_branch_pages + data.ms_leaf_pages + data.ms_overflow_pages + lists.ms_branch_pages +
	       lists.ms_leaf_pages + lists.ms_overflow_pages;
	*scarce = info.me_last_pgno > pages / 2;
	return used + len / data.ms_psize + 1 + reserve <= pages;
}

/* In a transaction within the open one: pages that are free but not side by side make the put fail, and no more than that. */
static int put_apart(struct ctl_store *s, uint64_t id, const void *data, size_t len)
{
	MDB_txn *outer = s->txn;
	int rc = mdb_txn_begin(s->env, outer, 0, &s->txn);

	if (rc == 0 && (rc = put_raw(s, id, data, len)) != 0)
		mdb_txn_abort(s->txn);
	else if (rc == 0)
		rc = mdb_txn_commit(s->txn);
	s->txn = outer;
	return rc;
}

uint64_t ctl_store_put(struct ctl_store *s, const struct amqp_record *def)
{
	size_t len = ctl_record_encode(s->scratch, CTL_RECORD_MAX, def);
	bool scarce;
	int rc;

	if (len == 0 || !begin(s))
		return 0;
	if (!has_room(s, len, &scarce)) {
		if (!s->told_full)
			ctl_log(CTL_LOG_ERROR,
				"a definition cannot be stored, nor can others: the store is full; raise store_bytes");
		s->told_full = true;
		return 0;
	}
	s->told_full = false;
	rc = scarce ? put_apart(s, s->next_id, s->scratch, len) : put_raw(s, s->next_id, s->scratch, len);
	if (rc == 0)
		return s->next_id++;
	ctl_log(CTL_LOG_ERROR, "a definition cannot be stored: %s", mdb_strerror(rc));
	return 0;
}

bool ctl_store_del(struct ctl_store *s, uint64_t id)
{
	uint8_t key[8];
	MDB_val k = {sizeof key, key};
	int rc;

	if (id == 0 || !begin(s))
		return false;
	key_of(id, key);
	rc = mdb_del(s->txn, s->dbi, &k, NULL);
	if (rc != 0)
		ctl_log(CTL_LOG_ERROR, "a stored definition cannot be deleted: %s", mdb_strerror(rc));
	return rc == 0;
}

bool ctl_store_commit(struct ctl_store *s)
{
	int rc;

	if (s->txn == NULL)
		return true;
	rc = mdb_txn_commit(s->txn);
	s->txn = NULL;
	if (rc == 0) {
		s->committed_next_id = s->next_id;
		return true;
	}
	s->next_id = s->committed_next_id;
	ctl_log(CTL_LOG_ERROR, "definitions cannot be written to the disk: %s", mdb_strerror(rc));
	return false;
}

void ctl_store_abort(struct ctl_store *s)
{
	if (s->txn == NULL)
		return;
	mdb_txn_abort(s->txn);
	s->txn = NULL;
	s->next_id = s->committed_next_id;
}

struct copy {
	uint64_t id;
	uint8_t *bytes;
	size_t len;
};

/* All definitions of a kind are copied first: what is called for them may write, and a cursor would see that. */
static size_t copy_all(struct ctl_store *s, uint16_t kind, struct copy **out)
{
	size_t count = 0, cap = 0;
	struct amqp_record rec;
	MDB_val k, v;
	MDB_cursor *cur;

	*out = NULL;
	if (!begin(s) || mdb_cursor_open(s->txn, s->dbi, &cur) != 0)
		return 0;
	while (mdb_cursor_get(cur, &k, &v, MDB_NEXT) == 0) {
		uint64_t id = id_of(&k);

		if (id == 0)
			continue;
		if (count == cap) {
			cap = cap != 0 ? 2 * cap : 256;
			*out = ctl_resize(*out, cap * sizeof **out);
		}
		(*out)[count] = (struct copy){id, ctl_alloc(v.mv_size), v.mv_size};
		memcpy((*out)[count].bytes, v.mv_data, v.mv_size);
		if (!ctl_record_decode((*out)[count].bytes, v.mv_size, &rec)) {
			ctl_log(CTL_LOG_ERROR, "stored definition %llu cannot be read and is left alone", (unsigned long long)id);
			rec.kind = AMQP_REC_NONE;
		}
		if (rec.kind == kind)
			count++;
		else
			free((*out)[count].bytes);
	}
	mdb_cursor_close(cur);
	return count;
}

void ctl_store_each(struct ctl_store *s, uint16_t kind, void (*each)(void *ctx, const struct amqp_record *def, uint64_t id),
		    void *ctx)
{
	struct copy *all;
	size_t count = copy_all(s, kind, &all);
	struct amqp_record rec;

	for (size_t i = 0; i < count; i++) {
		if (ctl_record_decode(all[i].bytes, all[i].len, &rec))
			each(ctx, &rec, all[i].id);
		free(all[i].bytes);
	}
	free(all);
}
