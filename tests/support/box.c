/* The only program of the containers in tests: cat, id, size, sleep, and setuid FILE. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char bytes[1 << 16];
	const char *verb = argc > 1 ? argv[1] : "id";
	if (!strcmp(verb, "cat")) {
		ssize_t length;
		while ((length = read(0, bytes, sizeof bytes)) > 0)
			for (ssize_t done = 0, sent; done < length; done += sent)
				if ((sent = write(1, bytes + done, length - done)) < 0)
					return 1;
	} else if (!strcmp(verb, "id")) {
		printf("uid %d\n", (int)getuid());
	} else if (!strcmp(verb, "setuid") && argc > 2) {
		FILE *file = fopen(argv[2], "w");
		return file == NULL || fclose(file) != 0 || chmod(argv[2], 04755) != 0;
	} else if (!strcmp(verb, "size")) {
		struct winsize size = { 0 };
		while (size.ws_row == 0) { /* the client sets the size after the start */
			if (ioctl(0, TIOCGWINSZ, &size) != 0)
				return 1;
			usleep(10000);
		}
		printf("%d rows, %d columns\n", size.ws_row, size.ws_col);
	} else if (!strcmp(verb, "sleep")) {
		pause();
	} else
		return 2;
	return 0;
}
