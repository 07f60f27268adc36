#include <unistd.h>

#include <iostream>

#include "clients/commands/tool.h"
#include "services/common/logging.h"

int main(int argc, char** argv) {
  mechinterp::InitLogging("abstract", "warning").IgnoreError();  // The level is a known one.
  return mechinterp::RunTool(
      argc, argv, {std::cin, std::cout, std::cerr, isatty(STDERR_FILENO) == 1, isatty(STDOUT_FILENO) == 1});
}
