// Formats the guest's system calls as strace(1) does, from the rows of syscalls.def, into the log.
#pragma once

// From now on every call is logged (level info). Set before the first guest process starts.
void strace_init(void);
