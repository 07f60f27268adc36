// What the tree uses of Apple's header of this name, as Apple documents it.
#pragma once

#include <cstddef>

extern "C" int sysctlbyname(const char* name, void* old_value, size_t* old_size, void* new_value,
                            size_t new_size);
