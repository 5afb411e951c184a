/* Prints, as JSON, the numbers and layouts in ffi/ as this system's C headers define them. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#ifdef __linux__
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/prctl.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
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
  printf(",\"flock.EX\":%d,\"flock.NB\":%d", LOCK_EX, LOCK_NB);
  NUMBER("options", SOL_SOCKET);
  NUMBER("options", SO_ACCEPTCONN);
#ifdef __linux__
  NUMBER("options", SO_TYPE);
  NUMBER("options", FIONREAD);
  NUMBER("options", SO_COOKIE);
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
  printf(",\"epoll_ctl.modify\":%d", EPOLL_CTL_MOD);
  printf(",\"stat.size\":%zu", sizeof(struct stat));
  FIELD("stat", "device", struct stat, st_dev);
  FIELD("stat", "inode", struct stat, st_ino);
#ifdef SYS_fstat /* LoongArch has it in newer headers only */
  printf(",\"fstat\":%d", SYS_fstat);
#endif
  printf(",\"poll\":[%d,%d,%d,%d]", POLLIN, EPOLLIN, POLLHUP, POLLNVAL);
  printf(",\"fcntl.SETFD\":%d,\"fcntl.DUPFD_CLOEXEC\":%d", F_SETFD, F_DUPFD_CLOEXEC);
  printf(",\"FD_CLOEXEC\":%d,\"SHUT_RDWR\":%d", FD_CLOEXEC, SHUT_RDWR);
  printf(",\"AF_NETLINK\":%d,\"NETLINK_SOCK_DIAG\":%d", AF_NETLINK, NETLINK_SOCK_DIAG);
  printf(",\"NETLINK_SOCKET\":%d", SOCK_DGRAM | SOCK_CLOEXEC);
  printf(",\"state.ESTABLISHED\":%d,\"state.LISTEN\":%d", TCP_ESTABLISHED, TCP_LISTEN);
  /* The request of diagRequest(), in the layout of the headers. */
  struct { struct nlmsghdr head; struct unix_diag_req body; } question = {
    .head = { sizeof question, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0 },
    .body = { .sdiag_family = AF_UNIX, .udiag_states = -1,
              .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER,
              .udiag_cookie = { -1, -1 } } };
  printf(",\"diagRequest\":[");
  for (size_t at = 0; at < sizeof question; at++)
    printf("%s%d", at ? "," : "", ((unsigned char *)&question)[at]);
  /* An answer for decodeDiag(): a listening socket that is bound to a file and has a peer. */
  struct {
    struct nlmsghdr head; struct unix_diag_msg body;
    struct nlattr nameHead; char name[8];
    struct nlattr vfsHead; struct unix_diag_vfs vfs;
    struct nlattr peerHead; uint32_t peer;
    struct nlmsghdr done; int status;
  } answer = {
    .head = { offsetof(__typeof__(answer), done), SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, 0, 0 },
    .body = { .udiag_family = AF_UNIX, .udiag_type = SOCK_STREAM, .udiag_state = TCP_LISTEN,
              .udiag_ino = 4711 },
    .nameHead = { sizeof(struct nlattr) + sizeof "/run/x", UNIX_DIAG_NAME }, .name = "/run/x",
    .vfsHead = { sizeof(struct nlattr) + sizeof(struct unix_diag_vfs), UNIX_DIAG_VFS },
    .vfs = { .udiag_vfs_ino = 42, .udiag_vfs_dev = 7 },
    .peerHead = { sizeof(struct nlattr) + 4, UNIX_DIAG_PEER }, .peer = 4712,
    .done = { sizeof(struct nlmsghdr) + 4, NLMSG_DONE, NLM_F_MULTI, 0, 0 } };
  printf("],\"diagAnswer\":[");
  for (size_t at = 0; at < sizeof answer; at++)
    printf("%s%d", at ? "," : "", ((unsigned char *)&answer)[at]);
  printf("]");
  printf(",\"pidfd_open\":%d", SYS_pidfd_open);
#define CALL(name) printf(",\"call." #name "\":%d", SYS_##name)
  CALL(getgroups);
  CALL(setgroups);
  CALL(getresuid);
  CALL(setresuid);
  CALL(getresgid);
  CALL(setresgid);
  CALL(setfsuid);
  CALL(setfsgid);
  CALL(capget);
  CALL(capset);
  CALL(prctl);
  CALL(exit_group);
  printf(",\"keepcaps.get\":%d,\"keepcaps.set\":%d", PR_GET_KEEPCAPS, PR_SET_KEEPCAPS);
  printf(",\"capability.SETGID\":%d,\"capability.SETUID\":%d", 1 << CAP_SETGID, 1 << CAP_SETUID);
  printf(",\"CAPABILITY_VERSION\":%d", _LINUX_CAPABILITY_VERSION_3);
  typedef struct __user_cap_data_struct capabilities[_LINUX_CAPABILITY_U32S_3];
  printf(",\"capabilities.size\":%zu", sizeof(capabilities));
  printf(",\"capabilities.effective\":%zu", offsetof(struct __user_cap_data_struct, effective));
  printf(",\"header.size\":%zu", sizeof(struct __user_cap_header_struct));
  FIELD("header", "version", struct __user_cap_header_struct, version);
  FIELD("header", "pid", struct __user_cap_header_struct, pid);
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
