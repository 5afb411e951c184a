/*
 * The baseline: the same lookups without a runtime. Fd 3 is the connection; the argument says which
 * lookup. Prints its first answer as JSON, then reads how many lookups to do and prints ns for each.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { FD = 3 };

static struct {
    struct ucred ids;
    gid_t groups[NGROUPS_MAX];
    socklen_t groups_size; /* in bytes */
    char label[4096];
    socklen_t label_size;
} now;

typedef bool lookup(void);

static inline bool again(void)
{
    socklen_t size = sizeof now.ids;
    return getsockopt(FD, SOL_SOCKET, SO_PEERCRED, &now.ids, &size) == 0 && size == sizeof now.ids;
}

/* As the library does before it believes a descriptor: it is AF_UNIX, and it does not listen. */
static inline bool first(void)
{
    struct sockaddr_storage name;
    socklen_t name_size = sizeof name;
    int listens;
    socklen_t listens_size = sizeof listens;
    return again()
        && getsockname(FD, (struct sockaddr *)&name, &name_size) == 0 && name.ss_family == AF_UNIX
        && getsockopt(FD, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_size) == 0 && !listens;
}

static inline bool identify(void)
{
    now.groups_size = sizeof now.groups;
    now.label_size = sizeof now.label;
    if (!again() || getsockopt(FD, SOL_SOCKET, SO_PEERGROUPS, now.groups, &now.groups_size) != 0)
        return false;
    if (getsockopt(FD, SOL_SOCKET, SO_PEERSEC, now.label, &now.label_size) == 0)
        return true;
    now.label_size = 0;
    return errno == ENOPROTOOPT; /* no security module labels sockets: an answer too */
}

/* Inlined for each lookup, so that the baseline does not pay for a call through a pointer. */
static inline __attribute__((always_inline)) double measure(long times, lookup *look)
{
    struct ucred expected = now.ids;
    struct timespec start, end;
    long wrong = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < times; i++)
        wrong += !look() || now.ids.pid != expected.pid || now.ids.uid != expected.uid
            || now.ids.gid != expected.gid;
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (wrong != 0) {
        fprintf(stderr, "%ld of %ld answers were wrong\n", wrong, times);
        exit(1);
    }
    return ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / times;
}

int main(int count, char **arguments)
{
    const char *which = count > 1 ? arguments[1] : "";
    bool is_first = strcmp(which, "first") == 0, is_identify = strcmp(which, "identify") == 0;
    if (!(is_first ? first() : is_identify ? identify() : again())) {
        perror("getsockopt");
        return 1;
    }
    printf("{\"pid\":%d,\"uid\":%u,\"gid\":%u", now.ids.pid, now.ids.uid, now.ids.gid);
    if (is_identify) {
        printf(",\"groups\":[");
        for (size_t i = 0; i < now.groups_size / sizeof *now.groups; i++)
            printf(i == 0 ? "%u" : ",%u", now.groups[i]);
        printf("],\"label\":\"%.*s\"", (int)now.label_size, now.label);
    }
    printf("}\n");
    fflush(stdout);

    for (long times; scanf("%ld", &times) == 1; fflush(stdout))
        printf("%f\n", is_first ? measure(times, first)
            : is_identify ? measure(times, identify) : measure(times, again));
}
