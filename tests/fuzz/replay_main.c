/*
 * replay_main.c - runs a fuzz target over the files of its corpus: what `make test` does in place of exploring.
 *
 * Owns: nothing; each file is read into a block of exactly its size, so that a sanitizer sees a read behind it.
 * Core: a test program; a crash of the target is the failure.
 * Spec: none.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static unsigned long inputs_count;

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *bytes;
	size_t size;

	if (f == NULL || fstat(fileno(f), &st) != 0) {
		printf("# %s cannot be read\n", path);
		if (f != NULL)
			fclose(f);
		return 1;
	}
	size = (size_t)st.st_size;
	bytes = malloc(size == 0 ? 1 : size);
	if (bytes == NULL || fread(bytes, 1, size, f) != size) {
		printf("# %s cannot be read whole\n", path);
		free(bytes);
		fclose(f);
		return 1;
	}
	fclose(f);
	/* Said before, and out of the buffer, so that a crash has a name. */
	printf("# %s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(bytes, size);
	inputs_count++;
	free(bytes);
	return 0;
}

static int replay(const char *path)
{
	struct dirent **entries;
	struct stat st;
	int failed = 0, count;

	if (stat(path, &st) != 0) {
		printf("# %s is not there\n", path);
		return 1;
	}
	if (!S_ISDIR(st.st_mode))
		return replay_file(path);
	count = scandir(path, &entries, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char child[4096];

		if (entries[i]->d_name[0] != '.') {
			snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
			failed += replay(child);
		}
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return failed + (count < 0);
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/') != NULL ? strrchr(argv[0], '/') + 1 : argv[0];
	char corpus[4096];
	int failed = 0;

	if (strncmp(name, "fuzz_", 5) == 0)
		name += 5;
	snprintf(corpus, sizeof corpus, "tests/fuzz/corpus/%s", name);
	if (LLVMFuzzerInitialize != NULL)
		LLVMFuzzerInitialize(&argc, &argv);
	puts("1..1");
	if (argc < 2)
		failed = replay(corpus);
	for (int i = 1; i < argc; i++)
		failed += replay(argv[i]);
	/* An empty corpus proves nothing. */
	printf("%s 1 - %s: %lu inputs of the corpus replayed\n", failed == 0 && inputs_count > 0 ? "ok" : "not ok", name,
	       inputs_count);
	return failed == 0 && inputs_count > 0 ? 0 : 1;
}
