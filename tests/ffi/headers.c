/* Prints, as JSON, what this system's C headers say of the numbers and layouts in ffi/. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#ifdef __linux__
#include <asm/socket.h> /* glibc may be older than the kernel, and not know SO_PEERGROUPS */
#else
#include <sys/param.h>
#include <sys/ucred.h>
#ifdef __APPLE__
#include <bsm/audit.h>
#endif
#endif

#define NUMBER(section, name) printf(",\"" section "." #name "\":%lld", (long long)(name))
#define FIELD(section, key, type, field) \
  printf(",\"" section "." key "\":%zu", offsetof(type, field))

int main(void) {
  printf("{\"AF_UNIX\":%d", AF_UNIX);
  NUMBER("options", SOL_SOCKET);
  NUMBER("options", SO_ACCEPTCONN);
#ifdef __linux__
  NUMBER("options", SO_PEERCRED);
  NUMBER("options", SO_PEERSEC);
  NUMBER("options", SO_PEERGROUPS);
#ifdef SO_PEERPIDFD /* headers of Linux 6.5 */
  NUMBER("options", SO_PEERPIDFD);
#endif
  NUMBER("open", O_CLOEXEC);
  printf(",\"ucred.size\":%zu", sizeof(struct ucred));
  FIELD("ucred", "pid", struct ucred, pid);
  FIELD("ucred", "uid", struct ucred, uid);
  FIELD("ucred", "gid", struct ucred, gid);
#else
  NUMBER("options", SOL_LOCAL);
  NUMBER("options", LOCAL_PEERCRED);
  printf(",\"xucred.size\":%zu", sizeof(struct xucred));
  FIELD("xucred", "version", struct xucred, cr_version);
  FIELD("xucred", "uid", struct xucred, cr_uid);
  FIELD("xucred", "ngroups", struct xucred, cr_ngroups);
  FIELD("xucred", "groups", struct xucred, cr_groups);
#ifdef __APPLE__
  NUMBER("options", LOCAL_PEERTOKEN);
  printf(",\"token.size\":%zu", sizeof(audit_token_t));
#endif
#endif
  struct sockaddr_un address;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  const unsigned char *bytes = (const void *)&address;
  printf(",\"address\":[%d,%d]", bytes[0], bytes[1]);
  FIELD("account", "userName", struct passwd, pw_name);
  FIELD("account", "userId", struct passwd, pw_uid);
  FIELD("account", "groupName", struct group, gr_name);
  FIELD("account", "groupId", struct group, gr_gid);
  printf(",\"account.userSize\":%zu,\"account.groupSize\":%zu", sizeof(struct passwd),
         sizeof(struct group));
  puts("}");
}
