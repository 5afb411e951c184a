/*
 * Many short connections to a server, one after the other, for the memory tests of servers.
 *
 *   throng UID HOW TIMES PATH
 *
 * As that user, without other groups, and TIMES times:
 *
 *   leave    connect, and hang up at once
 *   hello    send a line of text, read the answer, and close
 *   request  send a GET request for /a, read its response, and close
 *   early    send a GET request for /wait, and close before there is a response
 *   upgrade  request an upgrade at /upgrade, read the response, and close
 *   denied   the same at /secret
 *   behind   the same at /secret, with 16 KiB of data behind the request
 *
 * Prints {"connected":N}.
 */
#define _GNU_SOURCE
#include <err.h>
#include <grp.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char buffer[16384];

/* Waits until the server has read the request, so that the connection ends while it is handled. */
static void wait_until_read(int fd)
{
	int unread;
	while (ioctl(fd, SIOCOUTQ, &unread) == 0 && unread > 0)
		usleep(20);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		errx(2, "throng UID HOW TIMES PATH");
	const char *how = argv[2];
	uid_t uid = (uid_t)atol(argv[1]);
	if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
		err(1, "uid %s", argv[1]);
	const char *target = strcmp(how, "request") == 0 ? "/a" :
		strcmp(how, "early") == 0 ? "/wait" :
		strcmp(how, "upgrade") == 0 ? "/upgrade" : "/secret";
	int is_upgrade = strcmp(target, "/a") != 0 && strcmp(target, "/wait") != 0;
	char text[256] = "hello\n";
	int is_hello = strcmp(how, "hello") == 0, leaves = strcmp(how, "leave") == 0;
	if (!is_hello)
		snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", target,
			is_upgrade ? "Connection: Upgrade\r\nUpgrade: websocket\r\n" : "");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[4]);
	long connected = 0;
	for (long i = 0; i < atol(argv[3]); i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
			connected++;
		if (!leaves) {
			send(fd, text, strlen(text), MSG_NOSIGNAL);
			if (strcmp(how, "behind") == 0)
				send(fd, buffer, sizeof buffer, MSG_NOSIGNAL | MSG_DONTWAIT);
			if (strcmp(how, "early") == 0)
				wait_until_read(fd);
			else
				recv(fd, buffer, sizeof buffer, 0);
		}
		close(fd);
	}
	printf("{\"connected\":%ld}\n", connected);
	return 0;
}
