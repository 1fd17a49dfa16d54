// The caller's terminal, lent to a container.
#pragma once

// Opens the terminal that descriptor 0 is once more, so that nobody else shares its flags, and
// remembers its settings. Three times the same descriptor in ret_stdio. 0 or an exit status.
int terminal_borrow(int ret_stdio[3]);
// Puts its settings back. Safe to call when nothing was borrowed.
void terminal_give_back(void);
