/*
 * A Docker engine that answers the same each time, and its clients with one connection each.
 *
 *   docker serve PATH               the engine
 *   docker list PATH SECONDS        client: repeats GET /containers/json
 *   docker create PATH SECONDS      client: repeats the creation of a container
 *   docker stop PATH SECONDS        client: repeats POST /containers/web/stop
 *   docker copy PATH MIB            client: sends one archive, as `docker cp` does
 *
 * The clients compare each response with the first one, and print JSON. `copy` counts MiB, the others requests.
 */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 16, MIB = 1 << 20 };

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define CONTAINER(config) \
	"{\"Id\":\"" ID "\",\"Name\":\"/web\",\"Names\":[\"/web\"],\"Image\":\"sha256:" ID "\"," config "}"

static const char list[] = "[" CONTAINER("\"Labels\":{},\"State\":\"running\"") "]";
static const char inspection[] = CONTAINER("\"Config\":{\"Image\":\"alpine\",\"Labels\":{}},\"HostConfig\":{}");
static const char created[] = "{\"Id\":\"" ID "\",\"Warnings\":[]}";
static const char new_container[] =
	"{\"Image\":\"alpine\",\"Cmd\":[\"sleep\",\"1d\"],\"Env\":[\"A=b\"],\"Labels\":{\"a\":\"b\"},"
	"\"HostConfig\":{\"Memory\":1000000,\"NetworkMode\":\"none\",\"Binds\":null,\"CapDrop\":[\"ALL\"],"
	"\"SecurityOpt\":[\"no-new-privileges\"],\"RestartPolicy\":{\"Name\":\"no\"}},\"NetworkingConfig\":{}}";

static struct sockaddr_un address = { .sun_family = AF_UNIX };

struct reader { int fd; size_t length; char bytes[CHUNK + 1]; };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int send_all(int fd, const char *bytes, size_t length)
{
	for (ssize_t sent; length > 0; bytes += sent, length -= sent)
		if ((sent = send(fd, bytes, length, MSG_NOSIGNAL)) < 0)
			return -1;
	return 0;
}

/* Reads the head and the body of a message, and leaves the head in `bytes`. Returns the length of the head. */
static ssize_t read_message(struct reader *r, char *body, size_t room)
{
	char *end;
	while (r->bytes[r->length] = 0, (end = strstr(r->bytes, "\r\n\r\n")) == NULL) {
		ssize_t got = read(r->fd, r->bytes + r->length, CHUNK - r->length);
		if (got <= 0)
			return -1;
		r->length += got;
	}
	size_t head = end + 4 - r->bytes, have = r->length - head;
	char *field = strcasestr(r->bytes, "content-length: ");
	size_t rest = field != NULL && field < end ? strtoul(field + 16, NULL, 10) : 0;
	size_t kept = rest < room ? rest : room;
	if (have > rest)
		errx(1, "more than one message");
	memcpy(body, end + 4, have < kept ? have : kept);
	body[kept] = 0;
	static _Thread_local char bytes[CHUNK];
	for (rest -= have; rest > 0;) {
		ssize_t got = read(r->fd, bytes, rest < CHUNK ? rest : CHUNK);
		if (got <= 0)
			return -1;
		if (have < kept)
			memcpy(body + have, bytes, have + got < kept ? (size_t)got : kept - have);
		have += got;
		rest -= got;
	}
	r->length = 0;
	return head;
}

static void *serve(void *argument)
{
	struct reader *r = argument;
	char body[1];
	while (read_message(r, body, 0) > 0) {
		char *line_end = strchr(r->bytes, '\r');
		*line_end = 0;
		int is_list = strstr(r->bytes, "/containers/json") != NULL;
		int is_create = strstr(r->bytes, "/containers/create") != NULL;
		const char *text = is_list ? list : is_create ? created : strstr(r->bytes, "/json ") ? inspection : "";
		int is_stop = strstr(r->bytes, "/stop ") != NULL;
		char response[1024];
		int length = is_stop
			? sprintf(response, "HTTP/1.1 204 No Content\r\n\r\n")
			: sprintf(response,
				"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
				is_create ? "201 Created" : "200 OK", strlen(text), text);
		if (send_all(r->fd, response, length) != 0)
			break;
	}
	close(r->fd);
	free(r);
	return NULL;
}

static int open_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err(1, "socket");
	return fd;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static void report(size_t answers, double seconds, double *latencies, const char *answer)
{
	double p50 = 0, p99 = 0;
	if (latencies != NULL) {
		qsort(latencies, answers, sizeof *latencies, compare);
		p50 = latencies[answers / 2] * 1e6;
		p99 = latencies[answers * 99 / 100] * 1e6;
	}
	printf("{\"answers\":%zu,\"seconds\":%.6f,\"p50\":%.1f,\"p99\":%.1f,\"answer\":\"", answers, seconds, p50, p99);
	for (; *answer != 0; answer++)
		if (*answer != '"' && *answer != '\\' && *answer >= ' ')
			putchar(*answer);
	puts("\"}");
}

int main(int argc, char **argv)
{
	if (argc < 3 || strlen(argv[2]) >= sizeof address.sun_path)
		errx(2, "usage: docker serve|list|create|stop|copy PATH [SECONDS|MIB]");
	const char *mode = argv[1];
	strcpy(address.sun_path, argv[2]);
	signal(SIGPIPE, SIG_IGN);
	int fd = open_socket();
	if (strcmp(mode, "serve") == 0) {
		if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0)
			err(1, "listen at %s", address.sun_path);
		for (;;) {
			struct reader *r = calloc(1, sizeof *r);
			pthread_t thread;
			if (r == NULL || (r->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) < 0 ||
			    pthread_create(&thread, NULL, serve, r) != 0)
				err(1, "accept");
			pthread_detach(thread);
		}
	}
	if (argc < 4)
		errx(2, "%s needs a number", mode);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		err(1, "connect");
	static struct reader r;
	static char body[CHUNK], first[CHUNK], head[1024];
	r.fd = fd;
	double start = now();
	if (strcmp(mode, "copy") == 0) {
		size_t mib = strtoul(argv[3], NULL, 10);
		static char bytes[CHUNK];
		int length = sprintf(head,
			"PUT /v1.46/containers/web/archive?path=/ HTTP/1.1\r\nHost: docker\r\n"
			"Content-Type: application/x-tar\r\nContent-Length: %zu\r\n\r\n", mib * MIB);
		int failed = send_all(fd, head, length);
		for (size_t i = 0; i < mib * (MIB / CHUNK) && !failed; i++)
			failed = send_all(fd, bytes, CHUNK);
		if (read_message(&r, body, CHUNK - 1) < 0 || failed)
			errx(1, "the server has closed a connection");
		r.bytes[12] = 0;
		report(mib, now() - start, NULL, r.bytes + 9);
		return 0;
	}
	int length = strcmp(mode, "list") == 0
		? sprintf(head, "GET /v1.46/containers/json HTTP/1.1\r\nHost: docker\r\n\r\n")
		: strcmp(mode, "stop") == 0
		? sprintf(head, "POST /v1.46/containers/web/stop HTTP/1.1\r\nHost: docker\r\n\r\n")
		: sprintf(head,
			"POST /v1.46/containers/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
			"Content-Length: %zu\r\n\r\n%s", strlen(new_container), new_container);
	double end = start + atof(argv[3]);
	size_t answers = 0, most = 1 << 22;
	double *latencies = malloc(most * sizeof *latencies);
	if (latencies == NULL)
		err(1, "memory");
	for (double since; (since = now()) < end && answers < most; answers++) {
		if (send_all(fd, head, length) != 0 || read_message(&r, body, CHUNK - 1) < 0)
			errx(1, "the server has closed a connection");
		latencies[answers] = now() - since;
		r.bytes[12] = 0; /* the status */
		char answer[2 * CHUNK];
		snprintf(answer, sizeof answer, "%s %s", r.bytes + 9, body);
		if (answers == 0)
			strcpy(first, answer);
		else if (strcmp(first, answer) != 0)
			errx(1, "another answer: %s", answer);
	}
	report(answers, now() - start, latencies, first);
	return 0;
}
