#ifndef SERVICES_COMMON_COMPLETION_H_
#define SERVICES_COMMON_COMPLETION_H_

#include <string>

#include "services/common/command_description.h"

namespace mechinterp {

enum class Shell { kBash, kZsh, kFish };

// A script that makes a shell complete a program's commands, options and their named
// values; files where any value may stand.
std::string CompletionScript(Shell shell, const CommandDescription& program);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_COMPLETION_H_
