/*
 * A process of a chosen user that copies bytes from its input to a Unix socket, and back.
 *
 *   relay [option]... PATH
 *
 *   --uid N    become this user before connecting, with the group of the same number and no others
 *   --later N  become this user at SIGUSR1; the saved uid is kept for that
 *   --child    a child connects, and ends; its own child keeps the connection, and copies the bytes
 *   --reused   the same; another process then gets the pid of the process that connected
 *
 * The end of the input half-closes the connection; the end of the received data ends the process.
 */
#define _GNU_SOURCE
#include <err.h>
#include <grp.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int connection;
static uid_t later;

static void become_another(int signal)
{
	(void)signal;
	if (seteuid(0) != 0 || setresuid(later, later, later) != 0)
		_exit(3);
}

static void wait_for_the_end(void)
{
	close(0);
	close(1);
	alarm(60);
	pause();
	_exit(0);
}

/* Continues as a child. */
static void have_a_child(int is_reused)
{
	pid_t child = fork();
	if (child == 0)
		return;
	waitpid(child, NULL, 0);
	struct clone_args arguments = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&child,
		.set_tid_size = 1,
	};
	long copy = is_reused ? syscall(SYS_clone3, &arguments, sizeof arguments) : child;
	if (copy < 0)
		err(3, "clone3 with set_tid %d", child);
	if (copy == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	wait_for_the_end();
}

static int pass(int from, int to)
{
	static _Thread_local char bytes[1 << 16];
	ssize_t length = read(from, bytes, sizeof bytes);
	for (ssize_t done = 0, sent; done < length; done += sent)
		if ((sent = write(to, bytes + done, length - done)) < 0)
			return 0;
	return length > 0;
}

static void *send_all(void *nothing)
{
	while (pass(0, connection))
		;
	shutdown(connection, SHUT_WR);
	return nothing;
}

int main(int argc, char **argv)
{
	int child = 0, is_reused = 0, i = 1;
	const char *uid_text = NULL, *later_text = NULL;
	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (!strcmp(argv[i], "--child")) child = 1;
		else if (!strcmp(argv[i], "--reused")) child = is_reused = 1;
		else if (!strcmp(argv[i], "--uid")) uid_text = argv[++i];
		else if (!strcmp(argv[i], "--later")) later_text = argv[++i];
		else errx(2, "no option %s", argv[i]);
	}
	if (child)
		have_a_child(is_reused);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (i != argc - 1 || strlen(argv[i]) >= sizeof address.sun_path)
		errx(2, "usage: relay [option]... PATH");
	strcpy(address.sun_path, argv[i]);
	if (uid_text) {
		uid_t uid = strtoul(uid_text, NULL, 10);
		if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 ||
		    setresuid(uid, uid, later_text ? 0 : uid) != 0)
			err(3, "become uid %s", uid_text);
	}
	if (later_text) {
		later = strtoul(later_text, NULL, 10);
		signal(SIGUSR1, become_another);
	}
	signal(SIGPIPE, SIG_IGN);
	connection = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(connection, (struct sockaddr *)&address, sizeof address) != 0)
		err(1, "connect to %s", argv[i]);
	if (child && fork() != 0) {
		close(connection);
		wait_for_the_end();
	}
	pthread_t sender;
	if (pthread_create(&sender, NULL, send_all, NULL) != 0)
		errx(1, "thread");
	while (pass(connection, 1))
		;
	_exit(0);
}
