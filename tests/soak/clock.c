/*
 * This library for LD_PRELOAD changes the wall clock of a process while it runs. The file of SOAK_CLOCK
 * holds an int64_t: the seconds by which CLOCK_REALTIME is ahead. The monotonic clocks and the machine's
 * clock stay as they are.
 *
 * libfaketime reads its file in each call, with malloc(3) and a descriptor. This library must work in
 * signal handlers, and while the process has no free descriptor.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const _Atomic int64_t none;
static const _Atomic int64_t *ahead = &none;
static int (*next_gettime)(clockid_t, struct timespec *);
static int (*next_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

__attribute__((constructor)) static void start(void)
{
	const char *file = getenv("SOAK_CLOCK");
	int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
	void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (page != MAP_FAILED)
		ahead = page;
	next_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	/* The oldest version, which dlsym(3) may return, has another type of condition variables. */
	next_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
	if (!next_timedwait)
		next_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int result = next_gettime ? next_gettime(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		time->tv_sec += *ahead;
	return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	*time = (struct timeval){ .tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000 };
	return 0;
}

time_t time(time_t *result)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	if (result)
		*result = now.tv_sec;
	return now.tv_sec;
}

/* The kernel compares a limit by the wall clock with the machine's clock. One by the monotonic clock is small. */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *limit)
{
	struct timespec real = *limit;
	if (real.tv_sec > 1000000000)
		real.tv_sec -= *ahead;
	return next_timedwait(condition, mutex, &real);
}
