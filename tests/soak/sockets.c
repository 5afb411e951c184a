/*
 * This program holds sockets for the soak run, until its standard input ends:
 *
 *   sockets listen PATH            listens, as a service manager does for socket activation
 *   sockets flood PATH UID COUNT   opens connections as a user, and sends nothing
 *
 * Both print "ready". This runs a command that inherits the socket of the process PID, which listens:
 *
 *   sockets activate PID COMMAND ARGUMENT...
 *
 * The command has the process id of this program and the variables of sd_listen_fds(3).
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* SD_LISTEN_FDS_START */
enum { FIRST = 3 };

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	return address;
}

static int wait_for_end(void)
{
	char byte;
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || chmod(path, 0666) != 0 ||
	    listen(fd, 511) != 0)
		err(1, "listen");
	if (dup2(fd, FIRST) < 0)
		err(1, "dup2");
	wait_for_end();
	unlink(path);
	return 0;
}

static int flood(const char *path, uid_t uid, int count)
{
	struct sockaddr_un address = address_of(path);
	if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
		err(1, "ids");
	for (int i = 0; i < count; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
			err(1, "connect");
	}
	return wait_for_end();
}

static int activate(pid_t owner, char **command)
{
	char own[16];
	int process = syscall(SYS_pidfd_open, owner, 0);
	int fd = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, FIRST, 0);
	if (fd < 0)
		err(1, "pidfd_getfd");
	if (fd == FIRST) {
		if (fcntl(fd, F_SETFD, 0) != 0)
			err(1, "fcntl");
	} else if (dup2(fd, FIRST) < 0)
		err(1, "dup2");
	if (process > FIRST)
		close(process);
	if (fd > FIRST)
		close(fd);
	snprintf(own, sizeof own, "%d", getpid());
	setenv("LISTEN_PID", own, 1);
	setenv("LISTEN_FDS", "1", 1);
	execvp(command[0], command);
	err(1, "%s", command[0]);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "listen"))
		return listen_at(argv[2]);
	if (argc == 5 && !strcmp(argv[1], "flood"))
		return flood(argv[2], atoi(argv[3]), atoi(argv[4]));
	if (argc > 3 && !strcmp(argv[1], "activate"))
		return activate(atoi(argv[2]), argv + 3);
	errx(2, "usage: sockets listen PATH | flood PATH UID COUNT | activate PID COMMAND ARGUMENT...");
}
