#pragma once
#include "sentry/fs/dev/dev.h"

int mem_devices_init(void);
