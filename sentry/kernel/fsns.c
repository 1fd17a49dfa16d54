// What the kernel asks of the vfs on a task's behalf.
#include "sentry/kernel/clone.h"
#include "sentry/kernel/internal.h"
#include "sentry/vfs/mount.h"

int task_new_mnt_ns(struct task *t)
{
	struct fs_struct *fs = t->vt.fs;
	struct mnt_ns *ns;
	int r = mnt_ns_copy(fs->mnt_ns, fs, &ns);

	if (r < 0)
		return r;
	mnt_ns_put(fs->mnt_ns);
	fs->mnt_ns = ns;
	return 0;
}

int task_chdir(struct task *t, const char *path)
{
	struct path p, old = t->vt.fs->cwd;
	int r = path_walk(-100, path, WALK_FOLLOW | WALK_DIRECTORY, &p);

	if (r < 0)
		return r;
	r = path_permission(&p, t->vt.cred, MAY_EXEC);
	if (r < 0) {
		path_put(&p);
		return r;
	}
	t->vt.fs->cwd = p;
	path_put(&old);
	return 0;
}
