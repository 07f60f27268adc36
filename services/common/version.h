#ifndef SERVICES_COMMON_VERSION_H_
#define SERVICES_COMMON_VERSION_H_

namespace mechinterp {

// Version of the programs, as in CMakeLists.txt.
inline constexpr char kVersion[] = "0.1.0";

}  // namespace mechinterp

#endif  // SERVICES_COMMON_VERSION_H_
