// Fail-stop. kassert() stays in release builds: it guards invariants whose breach would let hostile
// input go on. kassert_debug() is for costly or hot checks.
#pragma once

_Noreturn void panic(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define kassert(x) do { if (__builtin_expect(!(x), 0)) panic("%s:%d: %s: !(%s)", __FILE__, __LINE__, __func__, #x); } while (0)
#ifdef CASEMATE_DEBUG
#define kassert_debug(x) kassert(x)
#else
#define kassert_debug(x) do { } while (0)
#endif
// Called by panic() before it stops: boot sets it to print stack traces. May be NULL.
extern void (*panic_hook)(void);
