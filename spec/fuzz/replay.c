/*
 * A target without libFuzzer: every file named, and in every folder named, once.
 *
 *     TARGET FILE|FOLDER...
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "target.h"

static unsigned replay_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *bytes = hostile_take(1 << 20);
	size_t size;

	if (!file) {
		perror(path);
		exit(1);
	}
	size = fread(bytes, 1, 1 << 20, file);
	fclose(file);
	/* At its own size, so that reads beyond it are seen. */
	bytes = realloc(bytes, size ? size : 1);
	(void)LLVMFuzzerTestOneInput(bytes, size);
	free(bytes);
	return 1;
}

static unsigned replay(const char *path)
{
	DIR *folder = opendir(path);
	const struct dirent *entry;
	unsigned count = 0;

	if (!folder)
		return replay_file(path);
	while ((entry = readdir(folder))) {
		char name[PATH_MAX];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		count += replay_file(name);
	}
	closedir(folder);
	return count;
}

int main(int argc, char **argv)
{
	unsigned count = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++)
		count += replay(argv[i]);
	printf("%s: %u inputs\n", argv[0], count);
	return count ? 0 : 1;
}
