/*
 * The symbols of glibc that Debian's libstdc++ and libgcc_s need, for the Bun build for musl (.ci/musl).
 * Alpine builds both libraries for musl; Debian has no such build.
 */
#include <locale.h>
#include <stddef.h>
#include <sys/random.h>
#include <time.h>

/* Threads may exist: the libraries must use atomic operations. */
char __libc_single_threaded = 0;

unsigned arc4random(void)
{
	unsigned value = 0;
	getrandom(&value, sizeof value, 0);
	return value;
}

size_t __strftime_l(char *into, size_t size, const char *format, const struct tm *time, locale_t locale)
{
	return strftime_l(into, size, format, time, locale);
}

/* Destructors of threads do not run: they only free memory. */
int __cxa_thread_atexit_impl(void (*destroy)(void *), void *object, void *library)
{
	(void)destroy, (void)object, (void)library;
	return 0;
}

/* "Not found": the unwinder then searches with dl_iterate_phdr(). */
int _dl_find_object(void *address, void *result)
{
	(void)address, (void)result;
	return -1;
}

/* Of libgcc, for programs that were compiled with -mtune=native. */
struct {
	unsigned values[4];
} __cpu_model;

int __cpu_indicator_init(void)
{
	return 0;
}
