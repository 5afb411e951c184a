/*
 * Many concurrent connections by processes of many users. Each receives its identity from the server,
 * and compares it with its own ids. Requires root.
 *
 *   crowd stream|http PATH CONNECTIONS AT_ONCE SEED
 *
 * stream: the server sends "pid uid gid\n" upon connect. http: it sends the same in response to GET /.
 * Prints, as JSON, the numbers of compared, wrong and missing answers, and of connections that hung
 * up without reading one. The exit code is 1 if any answer was wrong.
 */
#define _GNU_SOURCE
#include <err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct counts { long right, wrong, missing, left; };

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static char expected[64];

static int connect_as(uid_t uid, gid_t gid)
{
	if (setegid(gid) != 0 || seteuid(uid) != 0)
		err(3, "set ids");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		err(3, "connect");
	if (seteuid(0) != 0 || setegid(0) != 0)
		err(3, "restore ids");
	snprintf(expected, sizeof expected, "%d %u %u\n", (int)getpid(), uid, gid);
	return fd;
}

/* Reads until `text` ends with the expected line, or with another line of the same form. */
static int answer(int fd, int http)
{
	char text[4096];
	size_t length = 0;
	for (;;) {
		struct pollfd wait = { fd, POLLIN, 0 };
		if (poll(&wait, 1, 20000) <= 0)
			return 0;
		ssize_t got = read(fd, text + length, sizeof text - 1 - length);
		if (got <= 0)
			return 0;
		text[length += got] = 0;
		char *line = text;
		if (http) {
			char *end = strstr(text, "\r\n\r\n");
			if (!end)
				continue;
			line = end + 4;
			if (strstr(text, "chunked")) {
				char *size = strstr(line, "\r\n");
				if (!size)
					continue;
				line = size + 2;
			}
		}
		char *end = strchr(line, '\n');
		if (!end)
			continue;
		end[1] = 0;
		return strcmp(line, expected) == 0 ? 1 : -1;
	}
}

static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Ucred-Uid: 0\r\n\r\n";

static void visit(struct counts *counts, int http)
{
	int fd = connect_as(10000 + random() % 5000, 20000 + random() % 5000);
	switch (random() % 8) {
	case 0: /* leaves at once */
		__atomic_add_fetch(&counts->left, 1, __ATOMIC_RELAXED);
		close(fd);
		return;
	case 1: /* sends something and hangs up */
		if (http)
			(void)!write(fd, request, sizeof request - 1);
		else
			shutdown(fd, SHUT_WR);
		__atomic_add_fetch(&counts->left, 1, __ATOMIC_RELAXED);
		close(fd);
		return;
	case 2: /* hesitates */
		usleep(random() % 2000);
	}
	for (int times = http ? 1 + random() % 3 : 1; times > 0; times--) {
		if (http && write(fd, request, sizeof request - 1) < 0) {
			__atomic_add_fetch(&counts->missing, 1, __ATOMIC_RELAXED);
			break;
		}
		int right = answer(fd, http);
		long *count = right > 0 ? &counts->right : right < 0 ? &counts->wrong : &counts->missing;
		__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
		if (right <= 0)
			break;
	}
	if (random() % 4 == 0)
		usleep(random() % 2000);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 6)
		errx(2, "usage: crowd stream|http PATH CONNECTIONS AT_ONCE SEED");
	int http = strcmp(argv[1], "http") == 0;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[2]);
	long connections = atol(argv[3]), at_once = atol(argv[4]), seed = atol(argv[5]);
	struct counts *counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		err(3, "mmap");
	for (long child = 0; child < at_once; child++) {
		if (fork() != 0)
			continue;
		srandom(seed + child);
		for (long i = child; i < connections; i += at_once)
			visit(counts, http);
		_exit(0);
	}
	int failed = 0, status;
	while (wait(&status) > 0)
		failed += status != 0;
	printf("{\"right\":%ld,\"wrong\":%ld,\"missing\":%ld,\"left\":%ld,\"failed\":%d}\n",
		counts->right, counts->wrong, counts->missing, counts->left, failed);
	return counts->wrong != 0 || failed != 0;
}
