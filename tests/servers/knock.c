/*
 * A user who tries to connect while servers start and end at a path, for the tests of socket paths.
 *
 *   knock UID PATH
 *
 * As that user, without other groups, connects repeatedly to PATH and to the socket in the private
 * folder beside it, and calls stat(2) on PATH. Prints {"knocking":true} once it has begun. At the end
 * of input it prints how often it connected, and each mode, owner and group that the file has had:
 * {"in":0,"refused":17,"seen":["600 0 0"]}
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static long in, refused;
static char seen[32][40];
static int count;

static void knock(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		in++;
	else if (errno == EACCES)
		refused++;
	close(fd);
}

static void look(const char *path)
{
	struct stat file;
	if (lstat(path, &file) != 0)
		return;
	char text[40];
	snprintf(text, sizeof text, "%o %u %u", file.st_mode & 07777, file.st_uid, file.st_gid);
	for (int i = 0; i < count; i++)
		if (!strcmp(seen[i], text))
			return;
	if (count == 32)
		errx(1, "too many");
	strcpy(seen[count++], text);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: knock UID PATH");
	uid_t uid = strtoul(argv[1], NULL, 10);
	if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
		err(3, "become uid %u", uid);
	char private[256], folder[256], name[256];
	strcpy(folder, argv[2]);
	strcpy(name, argv[2]);
	snprintf(private, sizeof private, "%.110s/.%.110s.ucred/s", dirname(folder), basename(name));
	printf("{\"knocking\":true}\n");
	fflush(stdout);
	struct pollfd input = { 0, POLLIN, 0 };
	while (poll(&input, 1, 0) == 0)
		for (int i = 0; i < 50; i++) {
			knock(argv[2]);
			knock(private);
			look(argv[2]);
		}
	printf("{\"in\":%ld,\"refused\":%ld,\"seen\":[", in, refused);
	for (int i = 0; i < count; i++)
		printf("%s\"%s\"", i ? "," : "", seen[i]);
	printf("]}\n");
	return 0;
}
