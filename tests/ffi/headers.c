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
#include <poll.h>
#include <sys/epoll.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
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
  NUMBER("options", SO_PASSCRED);
#ifdef SO_PASSRIGHTS /* headers of Linux 6.16 */
  NUMBER("options", SO_PASSRIGHTS);
#endif
#ifdef SO_PEERPIDFD /* headers of Linux 6.5 */
  NUMBER("options", SO_PEERPIDFD);
  NUMBER("options", SO_PASSPIDFD);
#endif
  NUMBER("open", O_CLOEXEC);
  printf(",\"ucred.size\":%zu", sizeof(struct ucred));
  FIELD("ucred", "pid", struct ucred, pid);
  FIELD("ucred", "uid", struct ucred, uid);
  FIELD("ucred", "gid", struct ucred, gid);
  printf(",\"msghdr.size\":%zu,\"iovec.size\":%zu", sizeof(struct msghdr), sizeof(struct iovec));
  FIELD("msghdr", "name", struct msghdr, msg_name);
  FIELD("msghdr", "nameLength", struct msghdr, msg_namelen);
  FIELD("msghdr", "parts", struct msghdr, msg_iov);
  FIELD("msghdr", "partCount", struct msghdr, msg_iovlen);
  FIELD("msghdr", "control", struct msghdr, msg_control);
  FIELD("msghdr", "controlLength", struct msghdr, msg_controllen);
  FIELD("msghdr", "flags", struct msghdr, msg_flags);
  FIELD("iovec", "base", struct iovec, iov_base);
  FIELD("iovec", "length", struct iovec, iov_len);
  printf(",\"control\":%zu", CMSG_SPACE(12) + CMSG_SPACE(4) + CMSG_SPACE(253 * 4));
  printf(",\"DATAGRAM_SOCKET\":%d", SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK);
  NUMBER("msg", MSG_TRUNC);
  NUMBER("msg", MSG_CTRUNC);
  NUMBER("msg", MSG_CMSG_CLOEXEC);
  printf(",\"statfs.size\":%zu", sizeof(struct statfs));
  FIELD("statfs", "type", struct statfs, f_type);
  printf(",\"pollfd.size\":%zu", sizeof(struct pollfd));
  FIELD("pollfd", "fd", struct pollfd, fd);
  FIELD("pollfd", "events", struct pollfd, events);
  FIELD("pollfd", "revents", struct pollfd, revents);
  printf(",\"epoll_event.size\":%zu", sizeof(struct epoll_event));
  FIELD("epoll_event", "data", struct epoll_event, data);
  printf(",\"epoll_ctl.add\":%d,\"epoll_ctl.del\":%d", EPOLL_CTL_ADD, EPOLL_CTL_DEL);
  printf(",\"poll\":[%d,%d,%d]", POLLIN, EPOLLIN, POLLNVAL);
  printf(",\"pidfd_open\":%d", SYS_pidfd_open);
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
  printf(",\"sockaddr_un.size\":%zu", sizeof(struct sockaddr_un));
  FIELD("sockaddr_un", "path", struct sockaddr_un, sun_path);
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
