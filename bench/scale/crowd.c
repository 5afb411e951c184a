/*
 * Connections that stay open.
 *
 *   crowd PATH CONNECTIONS USERS GROUPS
 *
 * Opens connections in turn as the uids 1000, 1001 and so on, or as this user if USERS is 0, with this many
 * supplementary groups. Waits for a byte of the server on each. Prints "ready", and ends with its input.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_UID = 1000, FIRST_GID = 100000 };

/* The policy of ../servers/server.ts allows connections of this group. */
enum { OPERATORS = 971 };

int main(int argc, char **argv)
{
	if (argc != 5)
		errx(2, "usage: crowd PATH CONNECTIONS USERS GROUPS");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
	int connections = atoi(argv[2]), users = atoi(argv[3]), groups = atoi(argv[4]);
	if (groups > 0 || users > 0) {
		gid_t *list = calloc(groups + 1, sizeof *list);
		for (int i = 0; i < groups; i++)
			list[i] = FIRST_GID + i;
		if (setgroups(groups, list) != 0)
			err(3, "setgroups");
		free(list);
	}
	if (users > 0 && setegid(OPERATORS) != 0)
		err(3, "setegid");
	for (int i = 0; i < connections; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			err(3, "socket");
		if (users > 0 && seteuid(FIRST_UID + i % users) != 0)
			err(3, "seteuid");
		if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
			err(3, "connect");
		if (users > 0 && seteuid(0) != 0)
			err(3, "seteuid");
		char byte;
		if (read(fd, &byte, 1) != 1)
			errx(3, "the server has closed a connection");
	}
	puts("ready");
	fflush(stdout);
	for (char byte; read(0, &byte, 1) > 0;)
		;
	return 0;
}
