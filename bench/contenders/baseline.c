/*
 * The baseline: the same lookups in C. Descriptor 3 is the connection; the argument selects the
 * lookup. It prints the first answer as JSON. Then it reads numbers of lookups from stdin, makes as
 * many, and prints ns per lookup.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#define GET_INFO 0xC040FF0BUL /* PIDFD_GET_INFO, Linux 6.13 */

enum { FD = 3 };

static struct {
    struct ucred ids;
    gid_t groups[NGROUPS_MAX];
    socklen_t groups_size; /* in bytes */
    char label[4096];
    socklen_t label_size;
    char exe[PATH_MAX];
} now;

static int pidfd;

typedef bool lookup(void);

static inline bool again(void)
{
    socklen_t size = sizeof now.ids;
    return getsockopt(FD, SOL_SOCKET, SO_PEERCRED, &now.ids, &size) == 0 && size == sizeof now.ids;
}

/* ucred makes the same call for a new descriptor, to check that it is AF_UNIX and has a peer. */
static inline bool first(void)
{
    struct sockaddr_storage name;
    socklen_t name_size = sizeof name;
    return again() && getpeername(FD, (struct sockaddr *)&name, &name_size) == 0
        && name.ss_family == AF_UNIX;
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
    return errno == ENOPROTOOPT; /* no security module labels sockets, which is also an answer */
}

static inline bool get_pidfd(void)
{
    socklen_t size = sizeof pidfd;
    return getsockopt(FD, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0 && size == sizeof pidfd;
}

static inline bool pin(void)
{
    return identify() && get_pidfd() && close(pidfd) == 0;
}

static inline bool alive(void)
{
    struct pollfd fds = { .fd = pidfd, .events = POLLIN };
    return poll(&fds, 1, 0) == 0;
}

static inline bool live(void)
{
    uint32_t info[16] = { 2 }; /* PIDFD_INFO_CREDS */
    if (!alive() || ioctl(pidfd, GET_INFO, info) != 0 || !(info[0] & 2) || !alive())
        return false;
    now.ids.uid = info[9];
    now.ids.gid = info[10];
    return true;
}

static inline bool read_link(const char *process, const char *name, char *into)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/%s", process, name);
    ssize_t length = readlink(path, into, PATH_MAX - 1);
    if (length < 0)
        return false;
    into[length] = '\0';
    return true;
}

static char peer_pid[16];

static inline bool exe(void)
{
    return alive() && read_link(peer_pid, "exe", now.exe) && alive();
}

/* Reads the files that ucred reads for a snapshot, without parsing them. */
static inline bool snapshot(void)
{
    static const char *const files[] = { "status", "cgroup", "comm", "stat", "loginuid", "sessionid" };
    static const char *const spaces[] = {
        "ns/cgroup", "ns/ipc", "ns/mnt", "ns/net", "ns/pid", "ns/time", "ns/user", "ns/uts",
    };
    static char text[65536], target[PATH_MAX];
    if (!exe())
        return false;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(text, 64, "/proc/%s/%s", peer_pid, files[i]);
        if (!alive())
            return false;
        int fd = open(text, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) { /* without an audit system, the last two do not exist */
            while (read(fd, text, sizeof text) > 0)
                ;
            close(fd);
        }
        if (!alive())
            return false;
    }
    if (!alive())
        return false;
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (!read_link(peer_pid, spaces[i], target) || !read_link("self", spaces[i], target))
            return false;
    return alive();
}

/* Inlined for each lookup, so that the baseline makes no calls through a pointer. */
static inline __attribute__((always_inline)) double measure(long times, lookup *look)
{
    struct ucred expected = now.ids;
    size_t exe_size = strlen(now.exe) + 1;
    char expected_exe[PATH_MAX];
    memcpy(expected_exe, now.exe, exe_size);
    struct timespec start, end;
    long wrong = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < times; i++)
        wrong += !look() || now.ids.pid != expected.pid || now.ids.uid != expected.uid
            || now.ids.gid != expected.gid || memcmp(now.exe, expected_exe, exe_size) != 0;
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (wrong != 0) {
        fprintf(stderr, "%ld of %ld answers were wrong\n", wrong, times);
        exit(1);
    }
    return ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / times;
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        lookup *look;
    } lookups[] = {
        { "again", again }, { "first", first }, { "accepted", again }, { "identify", identify },
        { "pin", pin },     { "live", live },   { "exe", exe },        { "snapshot", snapshot },
    };
    const char *which = count > 1 ? arguments[1] : "";
    lookup *look = NULL;
    for (size_t i = 0; i < sizeof lookups / sizeof *lookups; i++)
        if (strcmp(which, lookups[i].name) == 0)
            look = lookups[i].look;
    bool pinned = look == live || look == exe || look == snapshot;
    if (!look || !again() || (pinned && !get_pidfd())) {
        perror("getsockopt");
        return 1;
    }
    snprintf(peer_pid, sizeof peer_pid, "%d", now.ids.pid);
    if (!look()) {
        perror(which);
        return 1;
    }
    if (look == exe || look == snapshot)
        printf("{\"exe\":\"%s\"", now.exe);
    else if (look == live)
        printf("{\"uid\":%u,\"gid\":%u", now.ids.uid, now.ids.gid);
    else
        printf("{\"pid\":%d,\"uid\":%u,\"gid\":%u", now.ids.pid, now.ids.uid, now.ids.gid);
    if (look == identify) {
        printf(",\"groups\":[");
        for (size_t i = 0; i < now.groups_size / sizeof *now.groups; i++)
            printf(i == 0 ? "%u" : ",%u", now.groups[i]);
        printf("],\"label\":\"%.*s\"", (int)now.label_size, now.label);
    }
    printf("}\n");
    fflush(stdout);

    for (long times; scanf("%ld", &times) == 1; fflush(stdout))
        printf("%f\n", look == again ? measure(times, again)
            : look == first ? measure(times, first)
            : look == identify ? measure(times, identify)
            : look == pin ? measure(times, pin)
            : look == live ? measure(times, live)
            : look == exe ? measure(times, exe) : measure(times, snapshot));
}
