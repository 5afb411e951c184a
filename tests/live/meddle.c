/* Another user who changes the folder of a socket while it is bound, until stdin ends. As root:
 *
 *   meddle send UID PATH              sends datagrams to PATH; prints how many were accepted
 *   meddle swap UID FOLDER TARGET     replaces FOLDER's files by links to those in TARGET
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int is_over(void) {
  char byte;
  return read(0, &byte, 1) == 0;
}

static long send_to(const char *path) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strncpy(to.sun_path, path, sizeof to.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  long taken = 0;
  for (long tries = 0; tries % 64 != 0 || !is_over(); tries++) {
    taken += sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to) == 1;
  }
  return taken;
}

/* The socket's name and that of its private folder become links in turn. */
static long swap(const char *folder, const char *target) {
  const char *names[] = {"s", ".s.ucred"};
  char inside[4096];
  long swaps = 0;
  snprintf(inside, sizeof inside, "%s/s", target);
  if (chdir(folder) != 0) return -1;
  while (!is_over()) {
    for (int at = 0; at < 2; at++) {
      char away[64];
      snprintf(away, sizeof away, "away-%d", at);
      if (rename(names[at], away) == 0) {
        swaps += symlink(at == 0 ? inside : target, names[at]) == 0;
        for (int times = 0; times < 200; times++) getppid();
        unlink(names[at]);
        if (at == 1) rename(away, names[at]);
        else unlink(away);
      }
      rmdir(away);
    }
  }
  return swaps;
}

int main(int count, char **args) {
  if (count < 4) return 2;
  uid_t uid = atoi(args[2]);
  if (setregid(uid, uid) != 0 || setreuid(uid, uid) != 0) return 3;
  fcntl(0, F_SETFL, O_NONBLOCK);
  puts("1");
  fflush(stdout);
  long done = strcmp(args[1], "send") == 0 ? send_to(args[3]) : swap(args[3], args[4]);
  printf("%ld\n", done);
  return 0;
}
