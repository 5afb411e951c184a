/*
 * The real C library, with calls that fail as on an older kernel or in a denied process. Each
 * failure is enabled by a macro with the errno:
 *
 *   PEERPIDFD     getsockopt(SO_PEERPIDFD)
 *   PIDFD_OPEN    syscall(SYS_pidfd_open)
 *   GET_INFO      ioctl(PIDFD_GET_INFO); 0: succeeds, and returns no ids
 *   STATFS        fstatfs(); 0: succeeds, and returns another file system
 *   PASSPIDFD     setsockopt(SO_PASSPIDFD), and SO_PASSRIGHTS
 *   PASSCRED      setsockopt(SO_PASSCRED); 0: succeeds, and does nothing
 *   POLL, EPOLL_CREATE, EPOLL_CTL, READLINK, OPEN, SOCKET, BIND, RECVMSG
 *   OTHER_PID     not an errno: pidfd_open() opens this pid instead
 *   SIGNALS       not an errno: so many signals interrupt each poll() before it succeeds
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The functions below have libc's names, so they call the kernel themselves. */
__attribute__((unused)) static long kernel(long number, long a, long b, long c, long d, long e)
{
	long result;
	errno = 0;
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall" : "=a"(result)
	                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
	                 : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	result = x0;
#else
#error "another CPU"
#endif
	if (result < 0 && result > -4096) {
		errno = -result;
		return -1;
	}
	return result;
}

#define DENY(error) return errno = (error), -1

#ifdef PEERPIDFD
int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
	if (level == SOL_SOCKET && name == 77)
		DENY(PEERPIDFD);
	return kernel(SYS_getsockopt, fd, level, name, (long)value, (long)size);
}
#endif

#if defined(PIDFD_OPEN) || defined(OTHER_PID)
long syscall(long number, ...)
{
	__builtin_va_list rest;
	__builtin_va_start(rest, number);
	long first = __builtin_va_arg(rest, long), second = __builtin_va_arg(rest, long);
	long third = __builtin_va_arg(rest, long);
	__builtin_va_end(rest);
	if (number != SYS_pidfd_open)
		return kernel(number, first, second, third, 0, 0);
#ifdef PIDFD_OPEN
	DENY(PIDFD_OPEN);
#else
	return kernel(number, first ? OTHER_PID : first, second, third, 0, 0);
#endif
}
#endif

#ifdef GET_INFO
int ioctl(int fd, unsigned long request, ...)
{
	__builtin_va_list rest;
	__builtin_va_start(rest, request);
	void *argument = __builtin_va_arg(rest, void *);
	__builtin_va_end(rest);
	(void)fd;
	memset(argument, 0, 64);
	if (GET_INFO == 0)
		return 0; /* as for a reaped process: every id is 0, and the mask has no id bits */
	DENY(GET_INFO);
}
#endif

#ifdef STATFS
int fstatfs(int fd, struct statfs *into)
{
	(void)fd;
	if (STATFS == 0) {
		into->f_type = 0x09041934; /* anonymous inodes: all pidfds share one */
		return 0;
	}
	DENY(STATFS);
}
#endif

#ifdef POLL
int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	(void)fds, (void)count, (void)timeout;
	DENY(POLL);
}
#endif

#ifdef SIGNALS
int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	static int interrupted;
	if (interrupted++ < SIGNALS)
		DENY(EINTR);
	interrupted = 0;
	struct timespec now = {0, 0};
	(void)timeout; /* always 0 */
	return kernel(SYS_ppoll, (long)fds, count, (long)&now, 0, 0);
}
#endif

#ifdef EPOLL_CREATE
int epoll_create1(int flags)
{
	(void)flags;
	DENY(EPOLL_CREATE);
}
#endif

#ifdef EPOLL_CTL
int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	(void)epoll, (void)operation, (void)fd, (void)event;
	DENY(EPOLL_CTL);
}
#endif

#ifdef READLINK
ssize_t readlink(const char *path, char *into, size_t size)
{
	(void)path, (void)into, (void)size;
	DENY(READLINK);
}
#endif

#ifdef OPEN
int open(const char *path, int flags, ...)
{
	(void)path, (void)flags;
	DENY(OPEN);
}
#endif

#if defined(PASSPIDFD) || defined(PASSCRED)
int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
#ifdef PASSPIDFD
	if (name == 76 || name == 83)
		DENY(PASSPIDFD);
#endif
#ifdef PASSCRED
	if (name == SO_PASSCRED && PASSCRED == 0)
		return 0;
	if (name == SO_PASSCRED)
		DENY(PASSCRED);
#endif
	return kernel(SYS_setsockopt, fd, level, name, (long)value, size);
}
#endif

#ifdef SOCKET
int socket(int domain, int type, int protocol)
{
	(void)domain, (void)type, (void)protocol;
	DENY(SOCKET);
}
#endif

#ifdef BIND
int bind(int fd, const struct sockaddr *address, socklen_t size)
{
	(void)fd, (void)address, (void)size;
	DENY(BIND);
}
#endif

#ifdef RECVMSG
ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	(void)fd, (void)message, (void)flags;
	DENY(RECVMSG);
}
#endif
