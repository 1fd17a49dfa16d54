// O_ASYNC: a signal when a file becomes ready (fcntl(2), "Managing signals").
#pragma once
void fasync_init(void); // at boot
