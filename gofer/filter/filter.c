#include "gofer/filter/filter.h"

#include "platform/filter/filter.h"

int gofer_filter_install(void)
{
	return filter_install(&gofer_filter, 0);
}
