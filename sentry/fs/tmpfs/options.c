// Mount options of tmpfs (tmpfs(5)).
#include "sentry/fs/tmpfs/internal.h"

uint64_t (*tmpfs_memory_total)(void);

uint64_t tmpfs_total(void)
{
	return tmpfs_memory_total ? tmpfs_memory_total() : (uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE_SIZE;
}

// "123", "64k", "1m", "50%" (of what the sandbox has).
static bool parse_size(const char *s, uint64_t total, uint64_t *ret)
{
	char *end;
	unsigned shift = 0;
	uint64_t v;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	v = strtoull(s, &end, 0);
	if (errno)
		return false;
	switch (*end) {
	case 'g': case 'G': shift += 10; __attribute__((fallthrough));
	case 'm': case 'M': shift += 10; __attribute__((fallthrough));
	case 'k': case 'K': shift += 10; end++; break;
	case '%':
		if (v > 100 || !total)
			return false;
		v = total / 100 * v;
		end++;
		break;
	default:
		break;
	}
	if (*end || (shift && v >> (64 - shift)))
		return false;
	*ret = v << shift;
	return true;
}

static bool parse_u32(const char *s, int base, uint32_t max, uint32_t *ret)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(s, &end, base);
	if (errno || end == s || *end || *s == '-' || v > max)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool parse_option(struct tmpfs_limits *lim, const char *key, const char *val)
{
	if (strcmp(key, "size") == 0)
		return parse_size(val, tmpfs_total(), &lim->max_bytes);
	if (strcmp(key, "nr_blocks") == 0) {
		if (!parse_size(val, 0, &lim->max_bytes) || lim->max_bytes >> 52)
			return false;
		lim->max_bytes *= PAGE_SIZE;
		return true;
	}
	if (strcmp(key, "nr_inodes") == 0)
		return parse_size(val, 0, &lim->max_inodes);
	if (strcmp(key, "mode") == 0)
		return parse_u32(val, 8, 07777, &lim->mode);
	if (strcmp(key, "uid") == 0)
		return parse_u32(val, 10, UINT32_MAX, &lim->uid);
	if (strcmp(key, "gid") == 0)
		return parse_u32(val, 10, UINT32_MAX, &lim->gid);
	// What changes nothing here: where huge pages and memory come from is the host's.
	return strcmp(key, "huge") == 0 || strcmp(key, "mpol") == 0 || strcmp(key, "inode64") == 0 || strcmp(key, "inode32") == 0 ||
	       strcmp(key, "noswap") == 0;
}

int tmpfs_parse_options(struct tmpfs_limits *lim, const char *data)
{
	char *copy, *save = NULL, *opt;
	int err = 0;

	if (!data || !*data)
		return 0;
	copy = kstrdup(data);
	if (!copy)
		return -ENOMEM;
	for (opt = strtok_r(copy, ",", &save); opt && !err; opt = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(opt, '=');

		if (eq)
			*eq = 0;
		if (!parse_option(lim, opt, eq ? eq + 1 : ""))
			err = -EINVAL;
	}
	kfree(copy);
	return err;
}
