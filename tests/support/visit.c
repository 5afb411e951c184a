/*
 * A client for the tests of servers.
 *
 *   visit [option]... PATH     PATH beginning with '@' is an abstract name
 *
 *   --gid N --uid N  connect as this user, with no other groups
 *   --bind PATH      bind the client's end first
 *   --send TEXT      send this text
 *   --type TYPE      type of the socket: seqpacket or datagram; with datagram, send one and wait
 *   --attach 1       send a byte with a descriptor first; print the error if that fails
 *   --deaf 1         read nothing until the server has closed the connection
 *   --crowd N        connect N times, and hang up at once: some after sending bytes, some after
 *                    a half-close; print the number of connections
 *
 * Prints {"pid":…} once connected, or {"error":"ECONNREFUSED"}. When the server has closed the
 * connection, prints {"text":"the received bytes"}. Ends at the end of input.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static socklen_t address_of(const char *path, struct sockaddr_un *address)
{
	size_t length = strlen(path);
	if (length > sizeof address->sun_path)
		errx(2, "path too long: %s", path);
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, length);
	if (path[0] == '@')
		address->sun_path[0] = '\0';
	int ends = path[0] != '@' && length < sizeof address->sun_path;
	return offsetof(struct sockaddr_un, sun_path) + length + ends;
}

static void print_json(const char *text, size_t length)
{
	putchar('"');
	for (size_t i = 0; i < length; i++) {
		unsigned char c = text[i];
		if (c < 0x20 || c == '"' || c == '\\')
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static ssize_t send_descriptor(int fd)
{
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct iovec data = { "x", 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(header), &(int){ 0 }, sizeof(int));
	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

int main(int argc, char **argv)
{
	const char *uid = NULL, *gid = NULL, *bind_path = NULL, *text = NULL, *type_name = "";
	long crowd = 0, deaf = 0, attach = 0;
	int i = 1;
	for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
		const char *option = argv[i] + 2, *value = argv[i + 1];
		if (!strcmp(option, "uid")) uid = value;
		else if (!strcmp(option, "gid")) gid = value;
		else if (!strcmp(option, "bind")) bind_path = value;
		else if (!strcmp(option, "send")) text = value;
		else if (!strcmp(option, "type")) type_name = value;
		else if (!strcmp(option, "attach")) attach = atol(value);
		else if (!strcmp(option, "deaf")) deaf = atol(value);
		else if (!strcmp(option, "crowd")) crowd = atol(value);
		else errx(2, "no option --%s", option);
	}
	if (i != argc - 1)
		errx(2, "usage: visit [option]... PATH");
	if ((uid || gid) && setgroups(0, NULL) != 0)
		err(3, "setgroups");
	if (gid && setresgid(atol(gid), atol(gid), atol(gid)) != 0)
		err(3, "setresgid");
	if (uid && setresuid(atol(uid), atol(uid), atol(uid)) != 0)
		err(3, "setresuid");

	struct sockaddr_un address;
	socklen_t size;
	long connected = 0;
	for (long visit = 0; visit < crowd; visit++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		size = address_of(argv[i], &address);
		connected += connect(fd, (struct sockaddr *)&address, size) == 0;
		if (visit % 3 == 1)
			(void)!send(fd, "hello\n", 6, MSG_NOSIGNAL);
		if (visit % 3 == 2)
			shutdown(fd, visit % 2 ? SHUT_WR : SHUT_RD);
		close(fd);
	}
	if (crowd > 0) {
		printf("{\"connected\":%ld}\n", connected);
		return 0;
	}

	int type = !strcmp(type_name, "seqpacket") ? SOCK_SEQPACKET :
	    !strcmp(type_name, "datagram") ? SOCK_DGRAM : SOCK_STREAM;
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (bind_path) {
		size = address_of(bind_path, &address);
		if (bind(fd, (struct sockaddr *)&address, size) != 0)
			err(1, "bind to %s", bind_path);
	}
	size = address_of(argv[i], &address);
	if (connect(fd, (struct sockaddr *)&address, size) != 0) {
		printf("{\"error\":\"%s\"}\n", strerrorname_np(errno));
		return 0;
	}
	if (attach && send_descriptor(fd) < 0) {
		printf("{\"error\":\"%s\"}\n", strerrorname_np(errno));
		return 0;
	}
	printf("{\"pid\":%d}\n", (int)getpid());
	fflush(stdout);
	if (type == SOCK_DGRAM)
		(void)!send(fd, "", 0, MSG_NOSIGNAL);
	if (text)
		(void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
	static char received[1 << 16];
	size_t length = 0;
	for (;;) {
		struct pollfd wait[2] = { { fd, deaf ? 0 : POLLIN, 0 }, { 0, POLLIN, 0 } };
		if (poll(wait, 2, -1) < 0)
			err(1, "poll");
		if (wait[0].revents) {
			static char rest[1 << 16]; /* further bytes are read, but not printed */
			size_t room = sizeof received - length;
			ssize_t got = room ? read(fd, received + length, room) : read(fd, rest, sizeof rest);
			if (got <= 0)
				break;
			if (room)
				length += got;
		} else if (wait[1].revents) {
			char ignored[256];
			if (read(0, ignored, sizeof ignored) <= 0)
				return 0;
		}
	}
	close(fd); /* the reader of the text may expect a stale socket at the path of --bind */
	printf("{\"text\":");
	print_json(received, length);
	printf("}\n");
	return 0;
}
