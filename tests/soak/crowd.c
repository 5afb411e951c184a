/*
 * A crowd of clients of several users that behave well and badly:
 *
 *   crowd PATH REQUEST SERVED DENIED SEED COUNT CONCURRENT ONLY_WELL WAIT UID:EXPECT...
 *
 * REQUEST is hexadecimal. SERVED is a text that only a served client receives; "%u" in it stands
 * for the uid. DENIED, if not empty, is a text after which a client that was not served hangs up.
 * EXPECT is "yes", "no" or "any": whether the user must be served. With ONLY_WELL 1, all
 * clients behave well. A client waits for WAIT seconds.
 *
 * Prints one line of JSON: for each behaviour how many clients were "served", "refused" or "failed"
 * to connect; how many clients that behave well and must be served were not ("starved"); how many
 * clients still waited after WAIT seconds ("stuck"); and how many received the answer of another user,
 * or an answer although they are denied ("wrong").
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum behaviour { WELL, HALF, GARBAGE, SLOW, HUGE_, RESET, HALF_CLOSE, ATTACH, KILLED, IDLE, BEHAVIOURS };
static const char *const names[] = { "well", "half", "garbage", "slow", "huge", "reset", "half-close",
	"attach", "killed", "idle" };

/* The exit codes of clients. */
enum outcome { SERVED, REFUSED, FAILED, STUCK, WRONG, OUTCOMES };

static char request[1 << 16];
static size_t request_length;

static ssize_t send_descriptor(int fd)
{
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct iovec data = { request, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(header), &(int){ 0 }, sizeof(int));
	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* Requires that no "uid N" of another user arrives. */
static int is_wrong(const char *received, size_t length, uid_t uid, const char *expect, int served)
{
	char own[32];
	int own_length = snprintf(own, sizeof own, "uid %u", uid);
	const char *at = memmem(received, length, "uid ", 4);
	if (at && length - (at - received) >= (size_t)own_length && memcmp(at, own, own_length) != 0)
		return 1;
	return served && !strcmp(expect, "no");
}

static enum outcome answer(int fd, uid_t uid, const char *expect, const char *served_text, const char *denied)
{
	static char received[1 << 17];
	char wanted[256];
	size_t length = 0;
	snprintf(wanted, sizeof wanted, served_text, uid);
	for (;;) {
		int served = memmem(received, length, wanted, strlen(wanted)) != NULL;
		if (is_wrong(received, length, uid, expect, served))
			return WRONG;
		if (served)
			return SERVED;
		if (*denied && memmem(received, length, denied, strlen(denied)))
			return REFUSED;
		if (length == sizeof received)
			return REFUSED;
		ssize_t got = recv(fd, received + length, sizeof received - length, 0);
		if (got <= 0)
			return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? STUCK : REFUSED;
		length += got;
	}
}

static enum outcome behave(enum behaviour behaviour, int fd, uid_t uid, const char *expect, char **argv)
{
	static char noise[1 << 18];
	switch (behaviour) {
	case HALF:
		(void)!send(fd, request, request_length / 2, MSG_NOSIGNAL);
		return REFUSED;
	case GARBAGE:
		for (size_t i = 0; i < sizeof noise; i++)
			noise[i] = rand();
		(void)!send(fd, noise, 1 + rand() % 5000, MSG_NOSIGNAL);
		shutdown(fd, SHUT_WR);
		return answer(fd, uid, expect, argv[3], argv[4]) == WRONG ? WRONG : REFUSED;
	case HUGE_:
		memset(noise, 'a', sizeof noise);
		(void)!send(fd, request, request_length - 1, MSG_NOSIGNAL);
		(void)!send(fd, noise, sizeof noise, MSG_NOSIGNAL | MSG_DONTWAIT);
		return REFUSED;
	case RESET: /* closes with unread data: the server's next call fails with ECONNRESET */
		(void)!send(fd, request, request_length, MSG_NOSIGNAL);
		usleep(rand() % 3000);
		return REFUSED;
	case ATTACH:
		if (send_descriptor(fd) < 0)
			return REFUSED;
		(void)!send(fd, request + 1, request_length - 1, MSG_NOSIGNAL);
		break;
	case KILLED:
		(void)!send(fd, request, rand() % request_length, MSG_NOSIGNAL);
		usleep(rand() % 3000);
		kill(getpid(), SIGKILL);
		return REFUSED;
	case IDLE:
		usleep(rand() % 300000);
		return REFUSED;
	case SLOW:
		for (size_t i = 0; i < request_length; i++) {
			if (send(fd, request + i, 1, MSG_NOSIGNAL) < 0)
				break;
			usleep(rand() % 2000);
		}
		break;
	default:
		(void)!send(fd, request, request_length, MSG_NOSIGNAL);
	}
	if (behaviour == HALF_CLOSE)
		shutdown(fd, SHUT_WR);
	return answer(fd, uid, expect, argv[3], argv[4]);
}

static void client(enum behaviour behaviour, char *user, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = atoi(argv[9]) };
	char *expect = strchr(user, ':') + 1;
	uid_t uid = strtoul(user, NULL, 10);
	strcpy(address.sun_path, argv[1]);
	if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
		err(9, "ids");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		_exit(FAILED);
	_exit(behave(behaviour, fd, uid, expect, argv));
}

int main(int argc, char **argv)
{
	if (argc < 11)
		errx(2, "usage: crowd PATH REQUEST SERVED DENIED SEED COUNT CONCURRENT ONLY_WELL WAIT UID:EXPECT...");
	for (unsigned byte; sscanf(argv[2] + 2 * request_length, "%2x", &byte) == 1;)
		request[request_length++] = byte;
	srand(atoi(argv[5]));
	int count = atoi(argv[6]), concurrent = atoi(argv[7]), only_well = atoi(argv[8]), users = argc - 10;
	static struct { pid_t pid; int behaviour, must; } running[1024];
	long counts[BEHAVIOURS][OUTCOMES] = { 0 }, starved = 0, stuck = 0, wrong = 0;
	int open = 0;
	for (int started = 0; started < count || open > 0;) {
		if (started < count && open < concurrent) {
			int behaviour = only_well ? WELL : rand() % BEHAVIOURS;
			char *user = argv[10 + rand() % users];
			int must = behaviour == WELL && !strcmp(strchr(user, ':'), ":yes");
			pid_t pid = fork();
			if (pid < 0)
				err(1, "fork");
			srand(rand()); /* a child continues with other numbers than its parent */
			if (pid == 0)
				client(behaviour, user, argv);
			running[open].pid = pid;
			running[open].behaviour = behaviour;
			running[open++].must = must;
			started++;
			continue;
		}
		int status;
		pid_t pid = wait(&status);
		for (int i = 0; i < open; i++) {
			if (running[i].pid != pid)
				continue;
			int outcome = WIFEXITED(status) && WEXITSTATUS(status) < OUTCOMES ? WEXITSTATUS(status) : REFUSED;
			counts[running[i].behaviour][outcome]++;
			stuck += outcome == STUCK;
			wrong += outcome == WRONG;
			starved += running[i].must && outcome != SERVED;
			running[i] = running[--open];
			break;
		}
	}
	printf("{\"wrong\":%ld,\"stuck\":%ld,\"starved\":%ld,\"behaviours\":{", wrong, stuck, starved);
	for (int b = 0; b < BEHAVIOURS; b++)
		printf("%s\"%s\":{\"served\":%ld,\"refused\":%ld,\"failed\":%ld}", b ? "," : "", names[b],
		    counts[b][SERVED], counts[b][REFUSED], counts[b][FAILED]);
	puts("}}");
	return 0;
}
