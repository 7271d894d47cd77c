/*
 * mem.c - a worker's memory: one block on the port's NUMA node, every page of it there before the first frame.
 *
 * Owns: blocks of the DPDK heap, hugepages or not.
 * Core: the main thread, at start and at the end.
 * Spec: DESIGN section 4: everything is bounded and allocated at start.
 */
#include "dataplane/mem.h"

#include <numa.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_malloc.h>
#include <rte_memory.h>

#include "dataplane/log.h"

#define PROBES_MAX 64u

void *dp_mem_alloc(const char *what, size_t bytes, int numa_node, char *err, size_t err_bytes)
{
	struct rte_malloc_socket_stats stats;
	void *block = rte_malloc_socket(what, bytes, 64, numa_node);

	if (block == NULL) {
		memset(&stats, 0, sizeof stats);
		rte_malloc_get_socket_stats(numa_node, &stats);
		snprintf(err, err_bytes,
			 "%s needs %zu MiB in one piece on NUMA node %d, and DPDK's largest is %zu MiB: give DPDK more (-m MIB, "
			 "--socket-mem or "
			 "more hugepages) or lower the limits (--messages-memory, --tcp-memory, --connections …)",
			 what, (bytes >> 20) + 1, numa_node, stats.greatest_free_size >> 20);
		return NULL;
	}
	/* Writing makes the pages present; without hugepages they must also stay. A refused lock only risks swapping. */
	memset(block, 0, bytes);
	if (mlock(block, bytes) != 0)
		dp_log(DP_LOG_DEBUG, "the memory is not locked; on a machine that swaps, raise the limit of locked memory");
	return block;
}

void dp_mem_free(void *block)
{
	rte_free(block);
}

/* Asks the kernel for the node of some of the pages. Returns how many are elsewhere, or -1 when it cannot say. */
static int pages_elsewhere(const uint8_t *block, size_t bytes, size_t page_bytes, int numa_node, int *probes_count)
{
	void *page[PROBES_MAX];
	int status[PROBES_MAX], elsewhere = 0, count = 0;
	size_t step = bytes / PROBES_MAX;

	for (size_t at = 0; at < bytes && count < (int)PROBES_MAX; at += step < page_bytes ? page_bytes : step)
		page[count++] = (void *)(((uintptr_t)block + at) & ~(uintptr_t)(page_bytes - 1));
	if (numa_available() < 0 || numa_move_pages(0, (unsigned long)count, page, NULL, status, 0) != 0)
		return -1;
	for (int i = 0; i < count; i++)
		elsewhere += status[i] != numa_node;
	*probes_count = count;
	return elsewhere;
}

void dp_mem_report(const char *what, const void *block, size_t bytes, int numa_node)
{
	const struct rte_memseg_list *list = rte_mem_virt2memseg_list(block);
	size_t page_bytes = list != NULL ? (size_t)list->page_sz : (size_t)sysconf(_SC_PAGESIZE);
	int probes_count = 0, elsewhere = pages_elsewhere(block, bytes, page_bytes, numa_node, &probes_count);
	const char *proof = elsewhere < 0 ? " (the kernel does not say where)" : "";

	dp_log(DP_LOG_INFO, "memory: %s has %zu MiB in pages of %zu KiB on NUMA node %d%s", what, bytes >> 20, page_bytes >> 10,
	       numa_node, proof);
	if (elsewhere > 0)
		dp_log(DP_LOG_WARNING,
		       "%d of %d probed pages of it lie on another NUMA node: give that node memory with --socket-mem", elsewhere,
		       probes_count);
	if (page_bytes < (2u << 20))
		dp_log(DP_LOG_WARNING,
		       "no hugepages: it works, yet slower; reserve some (vm.nr_hugepages) and leave --no-huge out");
}
