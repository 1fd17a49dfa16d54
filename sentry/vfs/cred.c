// Credentials: reference counts, copies, group and capability tests.
#include "sentry/vfs/cred.h"

#include "platform/base/base.h"
#include "platform/base/slab.h"

#define CRED_LAST_CAP 40 // CAP_CHECKPOINT_RESTORE
#define CRED_ALL_CAPS ((1ULL << (CRED_LAST_CAP + 1)) - 1)

DEFINE_SLAB(cred_slab, struct cred);

void (*cred_user_ns_get)(struct user_ns *ns);
void (*cred_user_ns_put)(struct user_ns *ns);

struct cred *cred_new(void)
{
	struct cred *c = SLAB_NEW(cred_slab, struct cred);

	if (!c)
		return NULL;
	ref_init(&c->refs, 1);
	c->cap_permitted = c->cap_effective = c->cap_bounding = CRED_ALL_CAPS;
	return c;
}

struct cred *cred_dup(const struct cred *old)
{
	struct cred *c = SLAB_NEW(cred_slab, struct cred);

	if (!c)
		return NULL;
	*c = *old;
	ref_init(&c->refs, 1);
	c->groups = NULL;
	if (old->ngroups) {
		kassert(old->ngroups <= CRED_MAX_GROUPS);
		c->groups = kalloc(old->ngroups * sizeof(*c->groups));
		if (!c->groups) {
			slab_free(&cred_slab, c);
			return NULL;
		}
		memcpy(c->groups, old->groups, old->ngroups * sizeof(*c->groups));
	}
	if (c->user_ns && cred_user_ns_get)
		cred_user_ns_get(c->user_ns);
	return c;
}

struct cred *cred_get(const struct cred *c)
{
	struct cred *m = (struct cred *)c;

	ref_get(&m->refs);
	return m;
}

void cred_put(const struct cred *c)
{
	struct cred *m = (struct cred *)c;

	if (!m || !ref_put(&m->refs))
		return;
	if (m->user_ns && cred_user_ns_put)
		cred_user_ns_put(m->user_ns);
	kfree(m->groups);
	slab_free(&cred_slab, m);
}

bool cred_in_group(const struct cred *c, uint32_t gid)
{
	uint32_t lo = 0, hi = c->ngroups;

	if (c->fsgid == gid)
		return true;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (c->groups[mid] == gid)
			return true;
		if (c->groups[mid] < gid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

bool cred_capable(const struct cred *c, unsigned cap)
{
	return cap < 64 && (c->cap_effective >> cap & 1);
}
