// Stands in for Apple's header.
#pragma once
#include <stdint.h>
extern "C" uint64_t mach_absolute_time(void);
