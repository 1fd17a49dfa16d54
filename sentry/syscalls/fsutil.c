#include "sentry/syscalls/fsutil.h"

bool fs_path_empty(struct gaddr path, unsigned at_flags, char **ret_path, int *ret_err)
{
	*ret_path = "";
	*ret_err = 0;
	if (at_flags & AT_EMPTY_PATH && gaddr_null(path))
		return true;
	*ret_err = copy_in_path(ret_path, path);
	return !*ret_err && at_flags & AT_EMPTY_PATH && !**ret_path;
}

int fs_user_path(int dfd, struct gaddr path, unsigned at_flags, bool follow, struct path *ret)
{
	char *name;
	int err;

	fs_path_empty(path, at_flags, &name, &err);
	if (err)
		return err;
	return path_walk(dfd, name, (follow ? WALK_FOLLOW : 0) | (at_flags & AT_EMPTY_PATH ? WALK_EMPTY : 0), ret);
}
