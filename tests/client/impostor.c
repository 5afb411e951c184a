/*
 * A server of another user that counts the bytes that it receives, for the tests of clients.
 *
 *   impostor UID PATH
 *
 * Listens as that user. Prints {"listening":true}. After each connection it prints the number of
 * received bytes: {"bytes":0}. It sends nothing, and ends with its input.
 */
#define _GNU_SOURCE
#include <err.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: impostor UID PATH");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[2]);
	unlink(argv[2]);
	umask(0);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0)
		err(3, "bind");
	uid_t uid = strtoul(argv[1], NULL, 10);
	if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
		err(3, "become uid %u", uid);
	if (listen(listener, 16) != 0)
		err(3, "listen");
	printf("{\"listening\":true}\n");
	fflush(stdout);
	for (;;) {
		struct pollfd wait[2] = { { listener, POLLIN, 0 }, { 0, POLLIN, 0 } };
		poll(wait, 2, -1);
		if (wait[1].revents)
			return 0;
		int fd = accept(listener, NULL, NULL);
		static char bytes[1 << 16];
		long sum = 0;
		for (ssize_t got; (got = read(fd, bytes, sizeof bytes)) > 0;)
			sum += got;
		close(fd);
		printf("{\"bytes\":%ld}\n", sum);
		fflush(stdout);
	}
}
