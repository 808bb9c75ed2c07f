/*
 * Of many inputs of a target, a few that together pass every edge of the code that all of them
 * pass: again and again the one that passes most that none of the others did. Needs clang's
 * coverage.
 *
 *     TARGET FOLDER...    prints the paths of the few
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "target.h"

struct input {
	char *path;
	size_t size;
	uint8_t *passed; /* an element an edge */
};

struct cover {
	uint8_t *counters; /* of edges, as the compiler has them */
	size_t edges;
	struct input *inputs;
	size_t count;
};

static struct cover *find_cover(void)
{
	static struct cover cover;

	return &cover;
}

/* Called before main, once for all objects are linked into one. */
void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop);

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop)
{
	find_cover()->counters = start;
	find_cover()->edges = (size_t)(stop - start);
}

static void run_input(struct cover *cover, const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *bytes = hostile_take(1 << 20);
	struct input input = {.path = strdup(path), .passed = hostile_take(cover->edges)};

	if (!file || !input.path) {
		perror(path);
		exit(1);
	}
	input.size = fread(bytes, 1, 1 << 20, file);
	fclose(file);
	memset(cover->counters, 0, cover->edges);
	(void)LLVMFuzzerTestOneInput(bytes, input.size);
	memcpy(input.passed, cover->counters, cover->edges);
	free(bytes);
	cover->inputs = realloc(cover->inputs, (cover->count + 1) * sizeof(input));
	if (!cover->inputs)
		exit(1);
	cover->inputs[cover->count++] = input;
}

static void run_folder(struct cover *cover, const char *path)
{
	DIR *folder = opendir(path);
	const struct dirent *entry;

	if (!folder) {
		perror(path);
		exit(1);
	}
	while ((entry = readdir(folder))) {
		char name[PATH_MAX];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		run_input(cover, name);
	}
	closedir(folder);
}

/* How many edges an input passes that are still wanted. */
static size_t count_wanted(const struct cover *cover, const struct input *input,
			   const uint8_t *wanted)
{
	size_t count = 0;

	for (size_t i = 0; i < cover->edges; i++)
		count += wanted[i] && input->passed[i];
	return count;
}

static struct input *find_best(const struct cover *cover, const uint8_t *wanted)
{
	struct input *best = NULL;
	size_t most = 0;

	for (size_t i = 0; i < cover->count; i++) {
		struct input *input = &cover->inputs[i];
		size_t count = count_wanted(cover, input, wanted);

		if (count > most || (best && count == most && input->size < best->size)) {
			best = input;
			most = count;
		}
	}
	return most ? best : NULL;
}

int main(int argc, char **argv)
{
	struct cover *cover = find_cover();
	const struct input *best;
	uint8_t *wanted;

	for (int i = 1; i < argc; i++)
		run_folder(cover, argv[i]);
	wanted = hostile_take(cover->edges);
	memset(wanted, 1, cover->edges);
	while ((best = find_best(cover, wanted))) {
		printf("%s\n", best->path);
		for (size_t i = 0; i < cover->edges; i++)
			wanted[i] = wanted[i] && !best->passed[i];
	}
	free(wanted);
	for (size_t i = 0; i < cover->count; i++) {
		free(cover->inputs[i].path);
		free(cover->inputs[i].passed);
	}
	free(cover->inputs);
	return 0;
}
