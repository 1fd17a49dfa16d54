// Linux's kernel-internal error numbers: the call is to be restarted, or becomes EINTR, once a signal
// has been dealt with. The guest never sees them.
#pragma once

#define ERESTARTSYS 512           // restarted if the handler has SA_RESTART
#define ERESTARTNOINTR 513        // always restarted
#define ERESTARTNOHAND 514        // restarted if no handler ran
#define ERESTART_RESTARTBLOCK 516 // goes on through restart_syscall(2)
