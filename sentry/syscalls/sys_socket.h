// At boot: the socket families that there are, and what the socket room needs from the kernel.
#pragma once
void sys_socket_init(void);
