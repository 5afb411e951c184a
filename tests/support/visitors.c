/*
 * Clients of several users, each a process of its own.
 *
 *   visitors PATH HEX END UID:GID[:GROUP]...
 *
 * All clients connect, in this order. The program then creates the file PATH.all, and each client
 * sends the bytes of HEX, and reads until the server closes the connection or, unless END is empty,
 * it has received END. Prints an array of JSON strings: the received bytes, in the order of the
 * clients. A client that cannot connect receives nothing.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_CLIENTS = 64 };

static int connect_as(const char *ids, const struct sockaddr_un *address)
{
	char *rest;
	uid_t uid = strtoul(ids, &rest, 10);
	gid_t gid = strtoul(rest + 1, &rest, 10), group = *rest ? strtoul(rest + 1, NULL, 10) : 0;
	if (setgroups(*rest ? 1 : 0, &group) != 0 || setresgid(gid, gid, gid) != 0 ||
	    setresuid(uid, uid, uid) != 0)
		err(3, "ids of %s", ids);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* A server that has lost a connection must not keep the test waiting. */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 10 }, sizeof(struct timeval));
	if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
		return fd;
	close(fd);
	return -1;
}

static void print_received(int fd, const char *end, FILE *out)
{
	static char received[1 << 14];
	size_t length = 0;
	ssize_t got;
	while (fd >= 0 && length < sizeof received &&
	    !(*end && memmem(received, length, end, strlen(end))) && (got = read(fd, received + length, sizeof received - length)) > 0)
		length += got;
	putc('"', out);
	for (size_t at = 0; at < length; at++) {
		unsigned char c = received[at];
		fprintf(out, c < 0x20 || c == '"' || c == '\\' || c >= 0x7f ? "\\u%04x" : "%c", c);
	}
	putc('"', out);
}

int main(int argc, char **argv)
{
	if (argc < 5 || argc - 4 > MAX_CLIENTS)
		errx(2, "usage: visitors PATH HEX END UID:GID[:GROUP]...");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(argv[1]) >= sizeof address.sun_path)
		errx(2, "path too long: %s", argv[1]);
	strcpy(address.sun_path, argv[1]);
	int start[2], connected[2], answers[MAX_CLIENTS], count = argc - 4;
	if (pipe2(start, O_CLOEXEC) != 0 || pipe2(connected, O_CLOEXEC) != 0)
		err(1, "pipe");
	static char text[1 << 16];
	size_t length = 0;
	for (unsigned byte; length < sizeof text && sscanf(argv[2] + 2 * length, "%2x", &byte) == 1;)
		text[length++] = byte;
	for (int i = 0; i < count; i++) {
		int answer[2];
		char byte;
		if (pipe2(answer, O_CLOEXEC) != 0)
			err(1, "pipe");
		pid_t child = fork();
		if (child < 0)
			err(1, "fork");
		if (child == 0) {
			close(start[1]);
			int fd = connect_as(argv[i + 4], &address);
			(void)!write(connected[1], "", 1);
			(void)!read(start[0], &byte, 1); /* end of file */
			(void)!send(fd, text, length, MSG_NOSIGNAL);
			FILE *out = fdopen(answer[1], "w");
			print_received(fd, argv[3], out);
			fclose(out);
			_exit(0);
		}
		close(answer[1]);
		answers[i] = answer[0];
		if (read(connected[0], &byte, 1) != 1)
			err(1, "client");
	}
	char mark[sizeof address.sun_path + 8];
	snprintf(mark, sizeof mark, "%s.all", argv[1]);
	close(open(mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	close(start[1]);
	for (int i = 0; i < count; i++) {
		static char part[1 << 16];
		ssize_t got;
		printf(i ? "," : "[");
		fflush(stdout);
		while ((got = read(answers[i], part, sizeof part)) > 0)
			(void)!write(1, part, got);
	}
	puts("]");
	return 0;
}
