/*
 * Sends datagrams:  sender [option]... PATH TEXT
 *
 *   --bind NAME        bind the sending socket first; '@' begins an abstract name, as in PATH
 *   --uid N            send as this real, effective and saved uid and gid
 *   --claim P,U,G      name this pid, uid and gid as the sender's
 *   --descriptors N    pass N descriptors
 *   --repeat N         send TEXT followed by 0, 1, .. N-1
 *   --size N           send N bytes instead
 *   --wait             print a line, and end with the input
 *
 * Exit code 5 if sending is not permitted.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <grp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static socklen_t address_of(const char *name, struct sockaddr_un *address)
{
	size_t length = strlen(name);
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	if (length >= sizeof address->sun_path)
		errx(2, "path too long");
	memcpy(address->sun_path, name, length);
	if (name[0] == '@')
		address->sun_path[0] = '\0';
	return offsetof(struct sockaddr_un, sun_path) + length + (name[0] == '@' ? 0 : 1);
}

int main(int argc, char **argv)
{
	const char *name = NULL, *claim = NULL, *uid = NULL;
	long descriptors = 0, repeat = -1, size = -1;
	int waits = 0, i = 1;
	for (; i < argc && !strncmp(argv[i], "--", 2); i++) {
		const char *option = argv[i] + 2;
		if (!strcmp(option, "wait")) waits = 1;
		else if (i + 1 >= argc) errx(2, "--%s needs a value", option);
		else if (!strcmp(option, "bind")) name = argv[++i];
		else if (!strcmp(option, "uid")) uid = argv[++i];
		else if (!strcmp(option, "claim")) claim = argv[++i];
		else if (!strcmp(option, "descriptors")) descriptors = atol(argv[++i]);
		else if (!strcmp(option, "repeat")) repeat = atol(argv[++i]);
		else if (!strcmp(option, "size")) size = atol(argv[++i]);
		else errx(2, "no option --%s", option);
	}
	if (argc - i != 2)
		errx(2, "usage: sender [option]... PATH TEXT");

	struct sockaddr_un to, from;
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (name && bind(fd, (struct sockaddr *)&from, address_of(name, &from)) != 0)
		err(1, "bind to %s", name);
	if (uid) {
		unsigned long id = strtoul(uid, NULL, 10);
		if (setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id))
			err(3, "setresuid");
	}

	_Alignas(8) char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(253 * sizeof(int))];
	memset(control, 0, sizeof control);
	struct msghdr message = { .msg_name = &to, .msg_namelen = address_of(argv[i], &to) };
	struct cmsghdr *header = (void *)control;
	if (claim) {
		struct ucred ids;
		if (sscanf(claim, "%d,%u,%u", &ids.pid, &ids.uid, &ids.gid) != 3)
			errx(2, "--claim P,U,G");
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_CREDENTIALS;
		header->cmsg_len = CMSG_LEN(sizeof ids);
		memcpy(CMSG_DATA(header), &ids, sizeof ids);
		message.msg_controllen = CMSG_SPACE(sizeof ids);
		header = (void *)(control + message.msg_controllen);
	}
	if (descriptors > 0) {
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
		for (long d = 0; d < descriptors; d++)
			memcpy(CMSG_DATA(header) + d * sizeof fd, &fd, sizeof fd);
		message.msg_controllen += CMSG_SPACE(descriptors * sizeof(int));
	}
	if (message.msg_controllen > 0)
		message.msg_control = control;
	if (size > 0) { /* the default would not let a long one through */
		int room = 2 * size;
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	}
	char *text = malloc(size > 4096 ? size : 4096);
	for (long number = 0; number < (repeat < 0 ? 1 : repeat); number++) {
		long length = size;
		if (size >= 0)
			memset(text, 'x', size);
		else if (repeat < 0)
			length = snprintf(text, 4096, "%s", argv[i + 1]);
		else
			length = snprintf(text, 4096, "%s%ld", argv[i + 1], number);
		struct iovec part = { text, length };
		message.msg_iov = &part;
		message.msg_iovlen = 1;
		if (sendmsg(fd, &message, 0) != length) {
			warn("send to %s", argv[i]);
			return errno == EPERM ? 5 : 1;
		}
	}
	if (waits) {
		printf("%d\n", getpid());
		fflush(stdout);
		while (getchar() != EOF)
			;
	}
	return 0;
}
