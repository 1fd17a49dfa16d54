// Checking the global flags; logs.
#pragma once

// Derives and checks; 0 or an exit status.
int conf_check(void);
// The sandbox's log file, or -1 where none is asked for. The caller's.
int conf_open_debug_log(const char *id, const char *command, int *ret_fd);
