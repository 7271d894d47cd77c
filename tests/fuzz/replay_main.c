/*
 * replay_main.c - runs a fuzz target over stored inputs, where no fuzzer is linked: each file is one TAP line.
 *
 * Owns: nothing; the target is whatever LLVMFuzzerTestOneInput() it is linked with.
 * Core: tests only. Without arguments it takes tests/fuzz/corpus/<its own name less "fuzz_">.
 * Spec: none.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned ran, failed;

static void result(bool ok, const char *what, const char *why)
{
	ran++;
	failed += !ok;
	printf("%sok %u - %s%s%s\n", ok ? "" : "not ", ran, what, ok ? "" : ": ", ok ? "" : why);
	fflush(stdout); /* an input that crashes must not take the lines before it along */
}

static void run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	if (f == NULL) {
		result(false, path, "cannot be read");
		return;
	}
	size_t room = 4096, len = 0;
	uint8_t *bytes = malloc(room);
	while (bytes != NULL) {
		len += fread(bytes + len, 1, room - len, f);
		if (len < room)
			break;
		room *= 2;
		uint8_t *more = realloc(bytes, room);
		if (more == NULL)
			free(bytes);
		bytes = more;
	}
	bool whole = bytes != NULL && ferror(f) == 0;
	fclose(f);
	/* Exactly as long as the input, so that a sanitizer sees a read beyond it. */
	uint8_t *exact = whole ? malloc(len == 0 ? 1 : len) : NULL;
	if (exact == NULL) {
		free(bytes);
		result(false, path, "cannot be read");
		return;
	}
	memcpy(exact, bytes, len);
	free(bytes);
	printf("# %s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(exact, len);
	free(exact);
	result(true, path, "");
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static void run_path(const char *path)
{
	struct stat st;
	if (stat(path, &st) != 0) {
		result(false, path, "does not exist");
		return;
	}
	if (!S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	struct dirent **names = NULL;
	int n = scandir(path, &names, visible, by_name);
	if (n <= 0)
		result(false, path, "has no inputs");
	for (int i = 0; i < n; i++) {
		char file[4096];
		snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
		run_path(file);
		free(names[i]);
	}
	free(names);
}

int main(int argc, char **argv)
{
	printf("TAP version 13\n");
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	if (argc < 2) {
		const char *name = strrchr(argv[0], '/');
		name = name == NULL ? argv[0] : name + 1;
		char folder[4096];
		snprintf(folder, sizeof(folder), "tests/fuzz/corpus/%s", strncmp(name, "fuzz_", 5) == 0 ? name + 5 : name);
		run_path(folder);
	}
	printf("1..%u\n", ran);
	return failed == 0 && ran > 0 ? 0 : 1;
}
