/*
 * Load on a Unix socket for some time.
 *
 *   load http|connect|echo|hello PATH CONNECTIONS SECONDS [awake]
 *
 * http: repeats GET / on each connection. connect: opens a new connection for each GET /. echo: sends a
 * line for each line of the server, which sends the first one upon accept. hello: opens a new connection
 * after each line, which the server sends upon accept.
 * Each answer is compared with the first one. The output is JSON, with the first answer.
 *
 * awake: polls without sleeping. Waking a client takes the server as much time as half a connection, and
 * only a server that is slow enough for its client to fall asleep would pay for it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct connection { int fd, length; uint64_t since; char text[1024]; };

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static char first[1024];
static int epoll, http, once;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void send_request(struct connection *c)
{
	const char *text = http ? request : "x\n";
	c->length = 0;
	c->since = now();
	if (write(c->fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(1, "write");
}

static void open_connection(struct connection *c)
{
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		err(1, "socket");
	c->since = now();
	while (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0)
		if (errno != EAGAIN)
			err(1, "connect");
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) != 0)
		err(1, "epoll_ctl");
	uint64_t since = c->since;
	c->length = 0;
	if (http)
		send_request(c);
	c->since = since;
}

/* The body of the response, or NULL while it is incomplete. */
static const char *body_of(struct connection *c)
{
	c->text[c->length] = 0;
	if (!http)
		return strchr(c->text, '\n') ? c->text : NULL;
	char *head = strstr(c->text, "\r\n\r\n");
	if (!head)
		return NULL;
	char *length = strcasestr(c->text, "content-length: ");
	if (length && length < head) {
		long bytes = atol(length + 16);
		return c->text + c->length >= head + 4 + bytes ? head + 4 : NULL;
	}
	char *end = strstr(head + 4, "\r\n0\r\n\r\n"); /* chunked, in one chunk */
	if (!end)
		return NULL;
	*end = 0;
	char *data = strstr(head + 4, "\r\n");
	return data ? data + 2 : NULL;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		errx(2, "usage: load http|connect|echo|hello PATH CONNECTIONS SECONDS [awake]");
	int timeout = argc > 5 && strcmp(argv[5], "awake") == 0 ? 0 : 100;
	const char *mode = argv[1];
	http = strcmp(mode, "http") == 0 || strcmp(mode, "connect") == 0;
	once = strcmp(mode, "connect") == 0 || strcmp(mode, "hello") == 0;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[2]);
	int count = atoi(argv[3]);
	double seconds = atof(argv[4]);
	struct connection *all = calloc(count, sizeof *all);
	size_t most = 1 << 22, answers = 0;
	uint32_t *latencies = malloc(most * sizeof *latencies);
	if (!all || !latencies)
		err(1, "memory");
	epoll = epoll_create1(EPOLL_CLOEXEC);
	uint64_t start = now(), end = start + seconds * 1e9;
	for (int i = 0; i < count; i++)
		open_connection(&all[i]);
	struct epoll_event events[64];
	while (now() < end) {
		int ready = epoll_wait(epoll, events, 64, timeout);
		for (int i = 0; i < ready; i++) {
			struct connection *c = events[i].data.ptr;
			ssize_t got = read(c->fd, c->text + c->length, sizeof c->text - 1 - c->length);
			if (got <= 0)
				errx(1, "the server has closed a connection");
			c->length += got;
			const char *body = body_of(c);
			if (!body)
				continue;
			uint64_t t = now();
			if (!first[0])
				snprintf(first, sizeof first, "%s", body);
			if (strcmp(first, body) != 0)
				errx(1, "another answer: %s", body);
			if (answers < most)
				latencies[answers] = (t - c->since) / 100;
			answers++;
			if (once) {
				close(c->fd);
				open_connection(c);
			} else
				send_request(c);
		}
	}
	double took = (now() - start) / 1e9;
	size_t kept = answers < most ? answers : most;
	qsort(latencies, kept, sizeof *latencies, compare);
	first[strcspn(first, "\r\n")] = 0;
	printf("{\"answers\":%zu,\"seconds\":%.6f,\"p50\":%.1f,\"p99\":%.1f,\"answer\":\"%s\"}\n", answers, took,
		kept ? latencies[kept / 2] / 10.0 : 0, kept ? latencies[kept * 99 / 100] / 10.0 : 0, first);
	return 0;
}
