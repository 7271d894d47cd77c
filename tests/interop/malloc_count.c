/*
 * malloc_count.c - an interposer that counts the allocator's calls of each thread of a process, readable while it runs.
 *
 * Owns: a small table in a file mapping, one slot a thread; it allocates nothing itself and takes no lock.
 * Core: every thread of the process that it is preloaded into; each writes its own slot alone.
 * Spec: DESIGN section 3 (run to completion, no allocation after start).
 *
 * Use: build as a shared object, then start the program with
 *
 *	LD_PRELOAD=build/interop/malloc_count.so MALLOC_COUNT_FILE=/path/counts tickwire-dataplane …
 *
 * The file has 64 slots of 32 bytes, little-endian: uint64 thread id (0: free), uint64 allocations (malloc, calloc,
 * realloc, aligned_alloc, posix_memalign, memalign), uint64 frees, uint64 reserved. The worker is the thread whose
 * /proc/PID/task/TID/comm begins with "dp-worker-". A test reads its slot once when clients are connected and once after the
 * load: the differences must be 0. `python3 -c` with struct.iter_unpack("<QQQQ", …) is all that it takes. The slot of a thread
 * that made no call at all does not exist, which also means 0.
 *
 * The real functions are glibc's own entry points (__libc_malloc and its kin), so nothing has to be looked up with dlsym(),
 * which would allocate.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOTS_MAX 64u

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *block, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);
extern void __libc_free(void *block);

struct slot {
	_Atomic uint64_t tid, allocs, frees, reserved;
};

static struct slot private_slots[SLOTS_MAX]; /* until the file is mapped, and when there is none */
static struct slot *_Atomic slots = private_slots;
/* The initial-exec model: the first use of another kind of thread-local memory would itself call malloc. */
static _Thread_local uint32_t own_slot __attribute__((tls_model("initial-exec"))); /* plus one */

static uint32_t find_slot(void)
{
	uint64_t tid = (uint64_t)syscall(SYS_gettid), none = 0;
	struct slot *s = atomic_load(&slots);

	for (uint32_t i = 0; i < SLOTS_MAX; i++, none = 0)
		if (atomic_compare_exchange_strong(&s[i].tid, &none, tid))
			return i + 1;
	return SLOTS_MAX; /* the last slot is shared by those that came too late */
}

static struct slot *slot(void)
{
	if (own_slot == 0)
		own_slot = find_slot();
	return &atomic_load_explicit(&slots, memory_order_relaxed)[own_slot - 1];
}

static void count_alloc(void)
{
	atomic_fetch_add_explicit(&slot()->allocs, 1, memory_order_relaxed);
}

/* Before main(): what the start of the process has counted so far moves along. */
__attribute__((constructor)) static void map_file(void)
{
	const char *path = getenv("MALLOC_COUNT_FILE");
	int saved_errno = errno, fd;
	void *map;

	if (path == NULL)
		return;
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof private_slots) != 0)
		abort();
	map = mmap(NULL, sizeof private_slots, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		abort();
	close(fd);
	for (uint32_t i = 0; i < SLOTS_MAX; i++) {
		struct slot *to = &((struct slot *)map)[i], *from = &private_slots[i];

		atomic_store(&to->tid, atomic_load(&from->tid));
		atomic_store(&to->allocs, atomic_load(&from->allocs));
		atomic_store(&to->frees, atomic_load(&from->frees));
	}
	atomic_store(&slots, map);
	errno = saved_errno;
}

void *malloc(size_t bytes)
{
	count_alloc();
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	count_alloc();
	return __libc_calloc(count, bytes);
}

void *realloc(void *block, size_t bytes)
{
	count_alloc();
	return __libc_realloc(block, bytes);
}

void *memalign(size_t align, size_t bytes)
{
	count_alloc();
	return __libc_memalign(align, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
	count_alloc();
	return __libc_memalign(align, bytes);
}

int posix_memalign(void **out, size_t align, size_t bytes)
{
	void *block;

	count_alloc();
	if (align % sizeof(void *) != 0 || (align & (align - 1)) != 0 || align == 0)
		return EINVAL;
	block = __libc_memalign(align, bytes);
	if (block == NULL)
		return ENOMEM;
	*out = block;
	return 0;
}

void free(void *block)
{
	if (block == NULL)
		return;
	atomic_fetch_add_explicit(&slot()->frees, 1, memory_order_relaxed);
	__libc_free(block);
}
