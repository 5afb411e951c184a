/*
 * One end of a stream with known bytes, for the tests of the guard.
 *
 *   flow listen|connect PATH exchange BYTES   send this many bytes, and check those that arrive
 *   flow listen|connect PATH fill             send until no byte is accepted for a while, and print the
 *                                             number; after a line of input end, and count those that arrive
 *   flow listen|connect PATH drain            read nothing until a line of input, then check all
 *   flow listen PATH echo BACKLOG             serve any number of connections of `short`
 *   flow connect PATH short COUNT PARALLEL    COUNT connections, PARALLEL of them at once, each with its content
 *
 * The two ends send different streams. Prints JSON: {"listening":true} first.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CHUNK = 1 << 16, MAX_LENGTH = 100000 };

static struct sockaddr_un address = { .sun_family = AF_UNIX };

/* The eight bytes of a stream from 8 * index on: splitmix64. */
static uint64_t word(uint64_t seed, uint64_t index)
{
	uint64_t z = (seed << 48) + (index + 1) * 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* The bytes of a stream from an offset on; the buffer has 16 more than requested. */
static const char *stream(uint64_t seed, uint64_t offset, size_t length, uint64_t *room)
{
	for (size_t i = 0; i < length / 8 + 2; i++)
		room[i] = word(seed, offset / 8 + i);
	return (const char *)room + offset % 8;
}

struct end { int fd; uint64_t sends, expects, bytes, sent, received; int good; };

static void *send_stream(void *argument)
{
	struct end *end = argument;
	uint64_t *room = malloc(CHUNK + 16);
	while (end->sent < end->bytes) {
		size_t length = end->bytes - end->sent < CHUNK ? end->bytes - end->sent : CHUNK;
		const char *bytes = stream(end->sends, end->sent, length, room);
		ssize_t got = send(end->fd, bytes, length, MSG_NOSIGNAL);
		if (got < 0)
			break;
		end->sent += got;
	}
	shutdown(end->fd, SHUT_WR);
	free(room);
	return NULL;
}

static void check_stream(struct end *end)
{
	uint64_t *room = malloc(CHUNK + 16);
	char *bytes = malloc(CHUNK);
	ssize_t got;
	end->good = 1;
	while ((got = read(end->fd, bytes, CHUNK)) > 0) {
		end->good &= memcmp(bytes, stream(end->expects, end->received, got, room), got) == 0;
		end->received += got;
	}
	end->good &= got == 0;
	free(room);
	free(bytes);
}

static void wait_for_line(void)
{
	char c;
	while (read(0, &c, 1) == 1 && c != '\n')
		;
}

static void fill(struct end *end)
{
	uint64_t *room = malloc(CHUNK + 16);
	struct pollfd wait = { end->fd, POLLOUT, 0 };
	while (poll(&wait, 1, 1000) > 0) {
		const char *bytes = stream(end->sends, end->sent, CHUNK, room);
		ssize_t got = send(end->fd, bytes, CHUNK, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (got < 0 && errno != EAGAIN)
			err(1, "send");
		if (got > 0)
			end->sent += got;
	}
	free(room);
}

static void report(struct end *end)
{
	printf("{\"sent\":%lu,\"received\":%lu,\"good\":%s}\n", end->sent, end->received,
	       end->good ? "true" : "false");
	fflush(stdout);
}

static int connected(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		err(1, "connect to %s", address.sun_path);
	return fd;
}

/* A connection of `short` begins with its number of bytes, and the side that ends it. */
struct visit { uint32_t length, server_ends; };

static void *serve_visit(void *argument)
{
	int fd = (intptr_t)argument;
	struct visit visit;
	char *bytes = malloc(CHUNK);
	if (recv(fd, &visit, sizeof visit, MSG_WAITALL) == sizeof visit) {
		uint32_t left = visit.length;
		while (left > 0 || !visit.server_ends) {
			ssize_t got = read(fd, bytes, CHUNK);
			if (got <= 0)
				break;
			for (ssize_t done = 0, sent; done < got; done += sent)
				if ((sent = send(fd, bytes + done, got - done, MSG_NOSIGNAL)) < 0)
					got = done = 0, left = 0, sent = 0;
			left -= got;
		}
	}
	close(fd);
	free(bytes);
	return NULL;
}

static long next_visit, visits;
static long bad;
static uint64_t total;

/* Sends and reads at the same time, so that no side waits for the other. Returns whether all bytes came back. */
static int visit_once(long number)
{
	uint32_t length = word(3, number) % 8 == 0 ? word(4, number) % MAX_LENGTH : word(4, number) % 300;
	struct visit visit = { length, number % 2 };
	size_t size = sizeof visit + length, sent = 0, received = 0;
	uint64_t *room = malloc(length + 32);
	char *out = malloc(size), *in = malloc(length + 1);
	memcpy(out, &visit, sizeof visit);
	memcpy(out + sizeof visit, stream(5, number * 8, length, room), length);
	int fd = connected(), good = 1;
	for (;;) {
		struct pollfd wait = { fd, POLLIN | (sent < size ? POLLOUT : 0), 0 };
		poll(&wait, 1, -1);
		if (wait.revents & POLLOUT) {
			ssize_t got = send(fd, out + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
			if (got < 0 && errno != EAGAIN) {
				good = 0;
				break;
			}
			sent += got > 0 ? got : 0;
			if (sent == size && !visit.server_ends)
				shutdown(fd, SHUT_WR);
		}
		if (wait.revents & (POLLIN | POLLHUP)) {
			ssize_t got = recv(fd, in + received, length + 1 - received, MSG_DONTWAIT);
			if (got < 0 && errno == EAGAIN)
				continue;
			if (got <= 0) {
				good = got == 0;
				break;
			}
			received += got;
			if (received > length) {
				good = 0;
				break;
			}
		}
	}
	close(fd);
	good &= received == length && memcmp(in, out + sizeof visit, length) == 0;
	__atomic_add_fetch(&total, length, __ATOMIC_RELAXED);
	free(room);
	free(out);
	free(in);
	return good;
}

static void *visit_often(void *nothing)
{
	long number;
	while ((number = __atomic_fetch_add(&next_visit, 1, __ATOMIC_RELAXED)) < visits)
		if (!visit_once(number))
			__atomic_add_fetch(&bad, 1, __ATOMIC_RELAXED);
	return nothing;
}

int main(int argc, char **argv)
{
	if (argc < 4 || strlen(argv[2]) >= sizeof address.sun_path)
		errx(2, "usage: flow listen|connect PATH exchange|fill|drain|echo|short …");
	int listens = strcmp(argv[1], "listen") == 0;
	const char *act = argv[3];
	long number = argc > 4 ? atol(argv[4]) : 0;
	strcpy(address.sun_path, argv[2]);
	signal(SIGPIPE, SIG_IGN);
	int fd;
	if (listens) {
		int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		unlink(address.sun_path);
		if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
		    listen(listener, strcmp(act, "echo") == 0 ? number : 16) != 0)
			err(1, "listen at %s", argv[2]);
		printf("{\"listening\":true}\n");
		fflush(stdout);
		while (strcmp(act, "echo") == 0) {
			pthread_t thread;
			pthread_attr_t attributes;
			pthread_attr_init(&attributes);
			pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
			pthread_attr_setstacksize(&attributes, 1 << 16);
			intptr_t visitor = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			if (visitor >= 0 && pthread_create(&thread, &attributes, serve_visit, (void *)visitor))
				close(visitor);
		}
		if ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
			err(1, "accept");
	} else if (strcmp(act, "short") == 0) {
		long parallel = atol(argv[5]);
		pthread_t threads[parallel];
		visits = number;
		for (long i = 0; i < parallel; i++)
			pthread_create(&threads[i], NULL, visit_often, NULL);
		for (long i = 0; i < parallel; i++)
			pthread_join(threads[i], NULL);
		printf("{\"connections\":%ld,\"bad\":%ld,\"bytes\":%lu}\n", visits, bad, total);
		return 0;
	} else
		fd = connected();

	struct end end = { .fd = fd, .sends = listens ? 2 : 1, .expects = listens ? 1 : 2, .bytes = number };
	if (strcmp(act, "exchange") == 0) {
		pthread_t sender;
		pthread_create(&sender, NULL, send_stream, &end);
		check_stream(&end);
		pthread_join(sender, NULL);
	} else if (strcmp(act, "fill") == 0) {
		fill(&end);
		printf("{\"sent\":%lu}\n", end.sent);
		fflush(stdout);
		wait_for_line();
		shutdown(fd, SHUT_WR);
		check_stream(&end);
	} else {
		wait_for_line();
		check_stream(&end);
	}
	report(&end);
	return 0;
}
