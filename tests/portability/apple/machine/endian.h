// Stands in for Apple's header.
#pragma once
#include <endian.h>
