// What the files of the socket calls share.
#pragma once
#include "sentry/socket/socket.h"
#include "sentry/syscalls/syscalls.h"

// At boot: the socket families that there are, and what the socket room needs from the kernel.
void sys_socket_init(void);

// A reference to the socket file with this number, as the calls that may wait need it. -EBADF, -ENOTSOCK.
int sock_get(int fd, struct file **ret_f, struct socket **ret);
// MSG_DONTWAIT for files that are not to wait.
unsigned sock_wait_flag(const struct file *f);
int sock_addr_in(struct gaddr g, int64_t len, struct sockaddr_storage *ret);
// As much of the address as fits; the length it has goes to *len_addr.
int sock_addr_out(struct gaddr g, struct gaddr len_addr, const struct sockaddr_storage *sa, unsigned len);
int32_t socket_caller_pid(void);
