/*
 * Opens one descriptor of each kind that a program may inherit, then runs a command with them in
 * a child, as systemd does: the sockets have the credentials of this process.
 *
 *   descriptors COMMAND [ARG]...
 *
 * UCRED_DESCRIPTORS in the environment names them: a JSON object of kind → number.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char json[2048] = "{";

static int add(const char *kind, int fd)
{
	static int next = 40;
	if (fd < 0)
		err(1, "%s", kind);
	if (dup2(fd, next) < 0)
		err(1, "dup2 %s", kind);
	close(fd);
	size_t used = strlen(json);
	snprintf(json + used, sizeof json - used, "%s\"%s\":%d", used > 1 ? "," : "", kind, next);
	return next++;
}

/* A listener on an abstract name that the kernel chooses (autobind), and its address. */
static int listener(int type, struct sockaddr_un *address, socklen_t *length)
{
	int fd = socket(AF_UNIX, type, 0);
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	if (bind(fd, (struct sockaddr *)address, sizeof(sa_family_t)) != 0 || listen(fd, 8) != 0)
		err(1, "listen");
	*length = sizeof *address;
	if (getsockname(fd, (struct sockaddr *)address, length) != 0)
		err(1, "getsockname");
	return fd;
}

static void connection(const char *accepted, const char *connected, const char *listening, int type)
{
	struct sockaddr_un address;
	socklen_t length;
	int server = listener(type, &address, &length), client = socket(AF_UNIX, type, 0);
	if (connect(client, (struct sockaddr *)&address, length) != 0)
		err(1, "connect");
	add(accepted, accept(server, NULL, NULL));
	add(connected, client);
	add(listening, server);
}

static void pair(const char *kind, int type)
{
	int fds[2];
	if (socketpair(AF_UNIX, type, 0, fds) != 0)
		err(1, "%s", kind);
	add(kind, fds[0]); /* the other end stays open */
}

int main(int argc, char **argv)
{
	if (argc < 2)
		errx(2, "usage: descriptors COMMAND [ARG]...");
	connection("stream accepted", "stream connected", "stream listener", SOCK_STREAM);
	connection("seqpacket accepted", "seqpacket connected", "seqpacket listener", SOCK_SEQPACKET);
	pair("stream socketpair", SOCK_STREAM);
	pair("dgram socketpair", SOCK_DGRAM);
	pair("seqpacket socketpair", SOCK_SEQPACKET);
	add("stream unconnected", socket(AF_UNIX, SOCK_STREAM, 0));
	add("dgram unconnected", socket(AF_UNIX, SOCK_DGRAM, 0));

	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t length = sizeof address;
	int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (bind(receiver, (struct sockaddr *)&address, sizeof(sa_family_t)) != 0 ||
	    getsockname(receiver, (struct sockaddr *)&address, &length) != 0 ||
	    connect(sender, (struct sockaddr *)&address, length) != 0)
		err(1, "dgram");
	add("dgram connected", sender);
	add("dgram bound", receiver);

	struct sockaddr_in inet = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t inet_length = sizeof inet;
	int tcp = socket(AF_INET, SOCK_STREAM, 0), tcp_client = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(tcp, (struct sockaddr *)&inet, sizeof inet) != 0 || listen(tcp, 8) != 0 ||
	    getsockname(tcp, (struct sockaddr *)&inet, &inet_length) != 0 ||
	    connect(tcp_client, (struct sockaddr *)&inet, sizeof inet) != 0)
		err(1, "tcp");
	add("tcp accepted", accept(tcp, NULL, NULL));
	add("tcp connected", tcp_client);
	add("tcp listener", tcp);
	add("udp", socket(AF_INET, SOCK_DGRAM, 0));
	add("netlink", socket(AF_NETLINK, SOCK_RAW, 0));

	int ends[2];
	if (pipe(ends) != 0)
		err(1, "pipe");
	add("pipe", ends[0]);
	add("file", open("/dev/null", O_RDONLY));

	strcat(json, "}");
	setenv("UCRED_DESCRIPTORS", json, 1);
	pid_t child = fork();
	if (child < 0)
		err(1, "fork");
	if (child == 0) {
		execvp(argv[1], argv + 1);
		err(1, "%s", argv[1]);
	}
	int status;
	if (waitpid(child, &status, 0) != child)
		err(1, "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
