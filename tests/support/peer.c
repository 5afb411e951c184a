/*
 * A process with chosen ids that connects to a Unix socket, for the live tests.
 *
 *   peer [option]... PATH     connects, prints one line of JSON about itself, waits for end of input
 *
 * PATH beginning with '@' is an abstract name. Options, applied in this order:
 *   --unshare-user   enter a user namespace that maps nothing
 *   --unshare-pid    enter a new pid namespace
 *   --bind PATH      bind the client's end first
 *   --groups A,B,..  supplementary groups; --many-groups N for 1000..1000+N-1
 *   --resgid R,E,S  --resuid R,E,S   real, effective and saved ids
 *   --seqpacket      instead of a stream
 *   --thread         connect from a thread that is not the leader
 *   --exit           end at once after connecting, without a line
 *   --hand-on UID    after connecting, pass the socket to a child with this uid (the saved uid must
 *                    be 0 for that), and end
 *   --listen         listen on PATH instead of connecting to it
 */
#define _GNU_SOURCE
#include <err.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static gid_t groups[65536];

static socklen_t address_of(const char *path, struct sockaddr_un *address)
{
	size_t length = strlen(path);
	if (length >= sizeof address->sun_path)
		errx(2, "path too long: %s", path);
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, length);
	if (path[0] == '@')
		address->sun_path[0] = '\0';
	return offsetof(struct sockaddr_un, sun_path) + length + (path[0] == '@' ? 0 : 1);
}

struct job {
	int fd;
	const char *path;
	int listen;
};

static void *connect_to(void *argument)
{
	struct job *job = argument;
	struct sockaddr_un address;
	socklen_t length = address_of(job->path, &address);
	if (job->listen) {
		if (bind(job->fd, (struct sockaddr *)&address, length) != 0 || listen(job->fd, 8) != 0)
			err(1, "listen on %s", job->path);
	} else if (connect(job->fd, (struct sockaddr *)&address, length) != 0) {
		err(1, "connect to %s", job->path);
	}
	return NULL;
}

static void three(const char *text, unsigned long id[3])
{
	char *rest;
	id[0] = strtoul(text, &rest, 10);
	id[1] = strtoul(rest + 1, &rest, 10);
	id[2] = strtoul(rest + 1, &rest, 10);
}

int main(int argc, char **argv)
{
	const char *bind_path = NULL, *groups_text = NULL, *gids = NULL, *uids = NULL, *heir = NULL;
	int unshare_user = 0, unshare_pid = 0, thread = 0, leave = 0, listens = 0, type = SOCK_STREAM;
	long many = -1;
	int i = 1;
	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		const char *option = argv[i] + 2;
		if (!strcmp(option, "unshare-user")) unshare_user = 1;
		else if (!strcmp(option, "unshare-pid")) unshare_pid = 1;
		else if (!strcmp(option, "seqpacket")) type = SOCK_SEQPACKET;
		else if (!strcmp(option, "thread")) thread = 1;
		else if (!strcmp(option, "exit")) leave = 1;
		else if (!strcmp(option, "listen")) listens = 1;
		else if (i + 1 >= argc) errx(2, "--%s needs a value", option);
		else if (!strcmp(option, "bind")) bind_path = argv[++i];
		else if (!strcmp(option, "hand-on")) heir = argv[++i];
		else if (!strcmp(option, "groups")) groups_text = argv[++i];
		else if (!strcmp(option, "many-groups")) many = atol(argv[++i]);
		else if (!strcmp(option, "resgid")) gids = argv[++i];
		else if (!strcmp(option, "resuid")) uids = argv[++i];
		else errx(2, "no option --%s", option);
	}
	if (i != argc - 1)
		errx(2, "usage: peer [option]... PATH");

	if (unshare_user && unshare(CLONE_NEWUSER) != 0)
		err(3, "user namespace");
	if (unshare_pid) {
		if (unshare(CLONE_NEWPID) != 0)
			err(3, "pid namespace");
		pid_t child = fork();
		if (child < 0)
			err(3, "fork");
		if (child > 0) {
			int status;
			waitpid(child, &status, 0);
			return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
		}
	}
	struct job job = { socket(AF_UNIX, type | SOCK_CLOEXEC, 0), argv[i], listens };
	if (bind_path) {
		struct sockaddr_un address;
		socklen_t length = address_of(bind_path, &address);
		if (bind(job.fd, (struct sockaddr *)&address, length) != 0)
			err(1, "bind to %s", bind_path);
	}
	if (groups_text || many >= 0) {
		size_t count = 0;
		for (; (long)count < many; count++)
			groups[count] = 1000 + count;
		for (char *rest = (char *)groups_text; rest && *rest; count++) {
			groups[count] = strtoul(rest, &rest, 10);
			if (*rest == ',')
				rest++;
		}
		if (setgroups(count, groups) != 0)
			err(3, "setgroups");
	}
	unsigned long id[3];
	if (gids) {
		three(gids, id);
		if (setresgid(id[0], id[1], id[2]) != 0)
			err(3, "setresgid");
	}
	if (uids) {
		three(uids, id);
		if (setresuid(id[0], id[1], id[2]) != 0)
			err(3, "setresuid");
	}

	pthread_t other;
	if (!thread)
		connect_to(&job);
	else if (pthread_create(&other, NULL, connect_to, &job) != 0 || pthread_join(other, NULL) != 0)
		errx(4, "thread");
	if (leave)
		_exit(0);
	if (heir) {
		uid_t uid = strtoul(heir, NULL, 10);
		pid_t child = fork();
		if (child < 0)
			err(4, "fork");
		if (child > 0)
			_exit(0);
		if (seteuid(0) != 0 || setresuid(uid, uid, uid) != 0)
			err(3, "setresuid");
	}

	printf("{\"pid\":%d,\"uid\":%u,\"gid\":%u,\"groups\":[", getpid(), geteuid(), getegid());
	int count = getgroups(65536, groups);
	for (int g = 0; g < count; g++)
		printf("%s%u", g ? "," : "", groups[g]);
	printf("]}\n");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
