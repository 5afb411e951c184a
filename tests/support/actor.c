/*
 * A process that connects to a Unix socket and executes the lines that the server sends to it:
 *
 *   actor PATH
 *   actor --parent PATH   the same, as a child of a process that reaps it only on command
 *
 * Commands on the connection; each is answered with "ok", or ends the process with a message:
 *   setresuid R E S, setresgid R E S, setgroups A,B,..    change identity
 *   exec FILE           executes a copy of this program, from another file
 *   thread-exec FILE    the same from a thread that is not the leader, which takes over the pid
 *   comm NAME           sets the process's name; %n stands for a newline
 *   no-new-privs
 *   leave               a child keeps the connection, this process ends
 *   main-thread-exit    the main thread ends, and another one continues
 *   exit                ends, without an answer
 *
 * The parent reads commands from its input, and answers with a line:
 *   reap                waits until the child has ended, and reaps it
 *   reuse               the same, then starts a process with the former pid of the child
 *
 *   actor --reused PATH   connects and ends; another process gets its pid, which is printed
 */
#define _GNU_SOURCE
#include <err.h>
#include <grp.h>
#include <pthread.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_connection(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path)
		errx(2, "path too long: %s", path);
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		err(1, "connect to %s", path);
	return fd;
}

struct job {
	const char *file;
	int fd;
};

static void *become(void *argument)
{
	struct job *job = argument;
	char fd[12];
	snprintf(fd, sizeof fd, "%d", job->fd);
	execl(job->file, job->file, "--go-on", fd, NULL);
	err(1, "exec %s", job->file);
}

static void obey(int fd);

static void *go_on(void *fd)
{
	usleep(50000); /* until the main thread has ended */
	if (write((intptr_t)fd, "ok\n", 3) != 3)
		err(1, "answer");
	obey((intptr_t)fd);
	return NULL;
}

static void obey(int fd)
{
	FILE *in = fdopen(dup(fd), "r");
	setvbuf(in, NULL, _IONBF, 0); /* what follows exec must not be read before it */
	char line[4096], word[64], rest[4000];
	unsigned long a, b, c;
	while (fgets(line, sizeof line, in)) {
		rest[0] = '\0';
		if (sscanf(line, "%63s %3999[^\n]", word, rest) < 1)
			continue;
		if (!strcmp(word, "setresuid") || !strcmp(word, "setresgid")) {
			if (sscanf(rest, "%lu %lu %lu", &a, &b, &c) != 3)
				errx(2, "three ids: %s", rest);
			if ((word[6] == 'u' ? setresuid(a, b, c) : setresgid(a, b, c)) != 0)
				err(1, "%s", word);
		} else if (!strcmp(word, "setgroups")) {
			gid_t groups[64];
			size_t count = 0;
			for (char *at = rest; *at && count < 64;) {
				groups[count++] = strtoul(at, &at, 10);
				if (*at == ',')
					at++;
			}
			if (setgroups(count, groups) != 0)
				err(1, "setgroups");
		} else if (!strcmp(word, "exec") || !strcmp(word, "thread-exec")) {
			struct job job = { rest, fd };
			pthread_t thread;
			if (word[0] == 'e')
				become(&job);
			if (pthread_create(&thread, NULL, become, &job) != 0)
				errx(1, "thread");
			pthread_join(thread, NULL);
		} else if (!strcmp(word, "comm")) {
			char *escape = strstr(rest, "%n");
			if (escape) {
				*escape = '\n';
				memmove(escape + 1, escape + 2, strlen(escape + 2) + 1);
			}
			prctl(PR_SET_NAME, rest);
		} else if (!strcmp(word, "no-new-privs")) {
			prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		} else if (!strcmp(word, "leave")) {
			pid_t child = fork();
			if (child != 0)
				_exit(child < 0);
		} else if (!strcmp(word, "main-thread-exit")) {
			pthread_t thread;
			if (pthread_create(&thread, NULL, go_on, (void *)(intptr_t)fd) != 0)
				errx(1, "thread");
			pthread_exit(NULL);
		} else if (!strcmp(word, "exit")) {
			_exit(0);
		} else {
			errx(2, "no command %s", word);
		}
		if (write(fd, "ok\n", 3) != 3)
			err(1, "answer");
	}
	_exit(0);
}

/* Starts a process with this pid, which sleeps for at most a minute. */
static void take_pid(pid_t pid)
{
	struct clone_args arguments = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&pid,
		.set_tid_size = 1,
	};
	long child = syscall(SYS_clone3, &arguments, sizeof arguments);
	if (child < 0)
		err(3, "clone3 with set_tid %d", pid);
	if (child > 0)
		return;
	close(0);
	close(1);
	close(2);
	alarm(60);
	pause();
	_exit(0);
}

static void collect(pid_t child)
{
	if (waitpid(child, NULL, 0) != child)
		err(1, "waitpid");
}

int main(int argc, char **argv)
{
	if (argc == 2)
		obey(open_connection(argv[1]));
	if (argc != 3)
		errx(2, "usage: actor [--parent | --reused] PATH");
	if (!strcmp(argv[1], "--go-on")) {
		int fd = atoi(argv[2]);
		if (write(fd, "ok\n", 3) != 3)
			err(1, "answer");
		obey(fd);
	}
	pid_t child = fork();
	if (child < 0)
		err(1, "fork");
	if (child == 0) {
		int fd = open_connection(argv[2]);
		if (!strcmp(argv[1], "--reused"))
			_exit(0);
		obey(fd);
	}
	if (!strcmp(argv[1], "--reused")) {
		collect(child);
		take_pid(child);
		printf("%d\n", child);
		return 0;
	}
	char line[64];
	int reused = 0;
	while (fgets(line, sizeof line, stdin)) {
		collect(child);
		if ((reused = !strcmp(line, "reuse\n")))
			take_pid(child);
		printf("%d\n", child);
		fflush(stdout);
	}
	if (reused)
		kill(child, SIGKILL);
	return 0;
}
