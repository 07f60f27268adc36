// Stands in for Apple's header; TARGET_OS_* clang defines by itself.
#pragma once
#define TARGET_CPU_ARM64 1
#define TARGET_IPHONE_SIMULATOR 0
