/*
 * Watches the ids of all threads of a process until the end of input.
 *
 *   watch_threads PID     PID is also the main thread
 *
 * Prints a line as soon as the main thread has other ids than at first; at the end of input, a line for
 * each identity that another thread had.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char seen[64][4096];
static int count;

/* The lines of ids and groups of a thread, as one line; "" if it has ended. */
static const char *ids_of(int tasks, const char *thread)
{
	static char status[8192], ids[4096];
	char path[64];
	snprintf(path, sizeof path, "%s/status", thread);
	ids[0] = '\0';
	int fd = openat(tasks, path, O_RDONLY);
	if (fd < 0)
		return ids;
	ssize_t length = read(fd, status, sizeof status - 1);
	close(fd);
	if (length <= 0)
		return ids;
	status[length] = '\0';
	for (char *line = strtok(status, "\n"); line; line = strtok(NULL, "\n"))
		if (!strncmp(line, "Uid:", 4) || !strncmp(line, "Gid:", 4) || !strncmp(line, "Groups:", 7))
			snprintf(ids + strlen(ids), sizeof ids - strlen(ids), "%.1000s ", line);
	return ids;
}

int main(int argc, char **argv)
{
	char path[64], first[4096] = "";
	if (argc != 2)
		errx(2, "usage: watch_threads PID");
	snprintf(path, sizeof path, "/proc/%s/task", argv[1]);
	int tasks = open(path, O_RDONLY | O_DIRECTORY), printed = 0;
	if (tasks < 0)
		err(2, "%s", path);
	struct pollfd input = { .fd = 0, .events = POLLIN };
	while (poll(&input, 1, 0) == 0) {
		DIR *folder = fdopendir(openat(tasks, ".", O_RDONLY | O_DIRECTORY));
		for (struct dirent *entry; folder && (entry = readdir(folder));) {
			if (entry->d_name[0] == '.')
				continue;
			for (int time = 0; time < 20; time++) { /* the main thread has other ids for microseconds */
				const char *ids = ids_of(tasks, argv[1]);
				if (!first[0])
					strcpy(first, ids);
				else if (!printed && ids[0] && strcmp(ids, first)) {
					puts(ids);
					fflush(stdout);
					printed = 1;
				}
			}
			if (!strcmp(entry->d_name, argv[1]))
				continue;
			const char *ids = ids_of(tasks, entry->d_name);
			int at = 0;
			while (at < count && strcmp(seen[at], ids))
				at++;
			if (ids[0] && at == count && count < 64)
				strcpy(seen[count++], ids);
		}
		closedir(folder);
	}
	for (int at = 0; at < count; at++)
		puts(seen[at]);
	puts("end");
	return 0;
}
