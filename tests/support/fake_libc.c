/*
 * A C library that answers by a script: with any errno, length or bytes, and like another
 * operating system. The script is the file SCRIPT, which each call reads:
 *
 *   records of { call, key, result, error, need, size, count: int32 } and then `count` bytes
 *
 * The first record with this call and key answers. A call without a record fails with ENOSYS. Each
 * call appends a byte, its number, to the file CALLS. All other functions are those of libc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <grp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GETSOCKOPT = 1, GETSOCKNAME, GETPWUID_R, GETGRGID_R, OPEN, READ, GETPEERNAME, GETPWNAM_R, GETGRNAM_R };

/* The pointer that the account calls return. */
enum { FOUND = 0, MISSING = 1, OUTSIDE = 2, OTHER_ID = 3 };

struct record {
	int32_t call;
	uint32_t key;   /* level << 16 | name, or the id; for the rest 0 */
	int32_t result;
	int32_t error;  /* what errno becomes */
	int32_t need;   /* with less room: ERANGE, and the size that it takes */
	int32_t size;   /* the size that is reported; -1: leave it. For accounts: enum above */
	int32_t count;  /* bytes that are written, as far as there is room */
};

static unsigned char script[1 << 20];

/* Not open(2) and read(2), which this library defines itself. */
static const struct record *find(int call, uint32_t key)
{
	unsigned char number = call;
	long fd = syscall(SYS_openat, AT_FDCWD, CALLS, O_WRONLY | O_APPEND | O_CREAT, 0600);
	syscall(SYS_write, fd, &number, 1);
	syscall(SYS_close, fd);

	fd = syscall(SYS_openat, AT_FDCWD, SCRIPT, O_RDONLY);
	long length = 0, got;
	while ((got = syscall(SYS_read, fd, script + length, sizeof script - length)) > 0)
		length += got;
	syscall(SYS_close, fd);
	for (long at = 0; at + (long)sizeof(struct record) <= length;) {
		const struct record *record = (const void *)(script + at);
		if (record->call == call && record->key == key) {
			errno = record->error;
			return record;
		}
		at += sizeof *record + (record->count + 3) / 4 * 4;
	}
	errno = ENOSYS;
	return NULL;
}

static int answer(const struct record *record, void *value, socklen_t *size)
{
	if (!record)
		return -1;
	if (record->need > 0 && (socklen_t)record->need > *size) {
		*size = record->need;
		errno = ERANGE;
		return -1;
	}
	memcpy(value, record + 1, (socklen_t)record->count < *size ? (socklen_t)record->count : *size);
	if (record->size != -1)
		*size = record->size;
	return record->result;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
	(void)fd;
	return answer(find(GETSOCKOPT, (uint32_t)level << 16 | name), value, size);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
	(void)fd;
	return answer(find(GETSOCKNAME, 0), address, size);
}

int getpeername(int fd, struct sockaddr *address, socklen_t *size)
{
	(void)fd;
	return answer(find(GETPEERNAME, 0), address, size);
}

static int account(const struct record *record, uint32_t id, void *structure, char **name,
                   uint32_t *structure_id, char *strings, size_t room, void **result)
{
	*result = NULL;
	if (!record)
		return ENOSYS;
	if (record->need > 0 && (size_t)record->need > room)
		return ERANGE;
	if (record->size == MISSING)
		return record->result;
	memcpy(strings, record + 1, (size_t)record->count < room ? (size_t)record->count : room);
	*name = record->size == OUTSIDE ? strings + room : strings;
	*structure_id = record->size == OTHER_ID ? id + 1 : id;
	*result = structure;
	return record->result;
}

int getpwuid_r(uid_t id, struct passwd *passwd, char *strings, size_t room, struct passwd **result)
{
	return account(find(GETPWUID_R, id), id, passwd, &passwd->pw_name, &passwd->pw_uid, strings, room,
	               (void **)result);
}

int getgrgid_r(gid_t id, struct group *group, char *strings, size_t room, struct group **result)
{
	return account(find(GETGRGID_R, id), id, group, &group->gr_name, &group->gr_gid, strings, room,
	               (void **)result);
}

/* By name: the key is the name's length, and the answer's first bytes are the id. */
static int named(const struct record *record, void *structure, uint32_t *structure_id, size_t room,
                 void **result)
{
	*result = NULL;
	if (!record)
		return ENOSYS;
	if (record->need > 0 && (size_t)record->need > room)
		return ERANGE;
	if (record->size == MISSING)
		return record->result;
	memcpy(structure_id, record + 1, sizeof *structure_id);
	*result = structure;
	return record->result;
}

int getpwnam_r(const char *name, struct passwd *passwd, char *strings, size_t room,
               struct passwd **result)
{
	(void)strings;
	return named(find(GETPWNAM_R, strlen(name)), passwd, &passwd->pw_uid, room, (void **)result);
}

int getgrnam_r(const char *name, struct group *group, char *strings, size_t room,
               struct group **result)
{
	(void)strings;
	return named(find(GETGRNAM_R, strlen(name)), group, &group->gr_gid, room, (void **)result);
}

/* The key of a file is the length of its name, which is sufficient for the tests. */
static const char *opened;

int open(const char *path, int flags, ...)
{
	(void)flags;
	const struct record *record = find(OPEN, 0);
	opened = path;
	return record ? record->result : -1;
}

ssize_t read(int fd, void *into, size_t room)
{
	(void)fd;
	if (!opened)
		return 0; /* the end of the file, after one answer */
	const struct record *record = find(READ, strlen(opened));
	opened = NULL;
	socklen_t size = room;
	return answer(record, into, &size);
}

int close(int fd)
{
	return fd == 1000 ? 0 : -1; /* the one descriptor that scripts let open() give */
}

/* macOS and FreeBSD. */
int *__error(void)
{
	return &errno;
}
