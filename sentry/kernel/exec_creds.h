// See exec_creds.c.
#pragma once
#include <stdbool.h>

#include "sentry/vfs/vfs.h"

// The credentials after executing f; *ret is the caller's, still unpublished. may_gain: false when somebody
// outside shares or traces the process. ret_secure: AT_SECURE. -EPERM, -EINVAL, -ENOMEM. May wait.
int exec_new_creds(const struct cred *old, struct file *f, bool may_gain, struct cred **ret, bool *ret_secure);
