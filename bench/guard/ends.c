/*
 * The server behind a guard, and a client for bulk data. The other clients are in ../servers/load.c.
 *
 *   ends lines PATH         server: sends a line upon accept, and one for each line received
 *   ends http PATH          server: sends a response for each request head received
 *   ends bytes PATH         server: sends all received bytes back
 *   ends move PATH SECONDS  client of `bytes`: compares the received bytes; prints JSON, in MiB
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 16, PERIOD = 1000003 }; /* a prime, so that equal chunks are rare */

static const char line[] = "welcome\n";
static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nwelcome\n";
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static char pattern[PERIOD + CHUNK];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void send_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
		if (sent < 0)
			return;
		bytes += sent;
		length -= sent;
	}
}

static void *send_back(void *argument)
{
	int fd = (intptr_t)argument;
	char *bytes = malloc(CHUNK);
	for (ssize_t got; (got = read(fd, bytes, CHUNK)) > 0;)
		send_all(fd, bytes, got);
	close(fd);
	free(bytes);
	return NULL;
}

/* Counts the ends of heads or lines. `matched` keeps a partial match for the next read. */
static int count_ends(const char *bytes, ssize_t length, const char *end, unsigned char *matched)
{
	int found = 0;
	for (ssize_t i = 0; i < length; i++) {
		*matched = bytes[i] == end[*matched] ? *matched + 1 : bytes[i] == end[0];
		if (end[*matched] == 0) {
			found++;
			*matched = 0;
		}
	}
	return found;
}

static void serve(const char *kind)
{
	int http = strcmp(kind, "http") == 0, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0)
		err(1, "listen at %s", address.sun_path);
	static unsigned char matched[1 << 16];
	static char bytes[CHUNK];
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = listener }, events[64];
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int ready = epoll_wait(epoll, events, 64, -1);
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			if (fd == listener) {
				fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
				if (fd < 0 || fd >= (int)sizeof matched)
					err(1, "accept");
				matched[fd] = 0;
				event = (struct epoll_event){ .events = EPOLLIN, .data.fd = fd };
				epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
				if (!http)
					send_all(fd, line, sizeof line - 1);
				continue;
			}
			ssize_t got = read(fd, bytes, sizeof bytes);
			if (got <= 0) {
				close(fd);
				continue;
			}
			int count = count_ends(bytes, got, http ? "\r\n\r\n" : "\n", &matched[fd]);
			while (count-- > 0)
				send_all(fd, http ? answer : line, (http ? sizeof answer : sizeof line) - 1);
		}
	}
}

static double until;

static void *send_much(void *argument)
{
	int fd = (intptr_t)argument;
	for (uint64_t sent = 0; now() < until; sent += CHUNK)
		send_all(fd, pattern + sent % PERIOD, CHUNK);
	shutdown(fd, SHUT_WR);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 3 || strlen(argv[2]) >= sizeof address.sun_path)
		errx(2, "usage: ends lines|http|bytes|move PATH [SECONDS]");
	strcpy(address.sun_path, argv[2]);
	signal(SIGPIPE, SIG_IGN);
	pthread_t thread;
	if (strcmp(argv[1], "bytes") == 0) {
		int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0)
			err(1, "listen at %s", argv[2]);
		for (;;) {
			intptr_t fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			if (fd >= 0 && pthread_create(&thread, NULL, send_back, (void *)fd) == 0)
				pthread_detach(thread);
		}
	}
	if (strcmp(argv[1], "move") != 0)
		serve(argv[1]);

	uint32_t random = 1;
	for (size_t i = 0; i < sizeof pattern; i++)
		pattern[i] = i < PERIOD ? (random = random * 1664525 + 1013904223) >> 24 : pattern[i - PERIOD];
	intptr_t fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		err(1, "connect");
	double start = now();
	until = start + atof(argv[3]);
	pthread_create(&thread, NULL, send_much, (void *)fd);
	static char bytes[CHUNK];
	uint64_t received = 0;
	ssize_t got;
	for (; (got = read(fd, bytes, CHUNK)) > 0; received += got)
		if (memcmp(bytes, pattern + received % PERIOD, got) != 0)
			errx(1, "other bytes came back, from %lu on", received);
	if (got < 0)
		err(1, "read");
	printf("{\"answers\":%f,\"seconds\":%f,\"p50\":0,\"p99\":0,\"answer\":\"the same bytes\"}\n",
	       received / 1048576.0, now() - start);
	return 0;
}
