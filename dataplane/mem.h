/*
 * mem.h - a worker's memory: one block on the port's NUMA node, every page of it there before the first frame.
 *
 * Owns: blocks of the DPDK heap, hugepages or not.
 * Core: the main thread, at start and at the end.
 * Spec: DESIGN section 4: everything is bounded and allocated at start.
 */
#ifndef TICKWIRE_DP_MEM_H
#define TICKWIRE_DP_MEM_H

#include <stddef.h>

/* A zeroed block, aligned to 64 bytes, with all pages present. Errors: NULL and a sentence. */
void *dp_mem_alloc(const char *what, size_t bytes, int numa_node, char *err, size_t err_bytes);
void dp_mem_free(void *block);
/* Logs where a block really lies (asked of the kernel), and warns when that is the wrong node or not on hugepages. */
void dp_mem_report(const char *what, const void *block, size_t bytes, int numa_node);

#endif
