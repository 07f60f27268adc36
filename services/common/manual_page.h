#ifndef SERVICES_COMMON_MANUAL_PAGE_H_
#define SERVICES_COMMON_MANUAL_PAGE_H_

#include <string>

#include "services/common/command_description.h"

namespace mechinterp {

// A program's manual page, section 1, in the man macros of roff. `version` stands in its
// footer, "abstract 0.1.0".
std::string ManualPage(const CommandDescription& program, const std::string& version);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_MANUAL_PAGE_H_
