#include "services/common/logging.h"

#include <stdlib.h>

#include <map>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/spdlog.h"

namespace mechinterp {

absl::Status InitLogging(const std::string& program, const std::string& level) {
  static const std::map<std::string_view, spdlog::level::level_enum> levels = {
      {"trace", spdlog::level::trace},  {"debug", spdlog::level::debug}, {"info", spdlog::level::info},
      {"warning", spdlog::level::warn}, {"error", spdlog::level::err},   {"off", spdlog::level::off},
  };
  const auto found = levels.find(level);
  if (found == levels.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "log level \"", level, "\" is unknown; it must be trace, debug, info, warning, error or off"));
  }
  auto logger =
      std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %n %^%l%$ %v");
  logger->set_level(found->second);
  // gRPC writes internals to stderr when, say, a port is taken, beside the error
  // that we report. Whoever sets the variable gets them.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  // A crash must not swallow the lines that explain it.
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

}  // namespace mechinterp
