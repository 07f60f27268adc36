#include "services/common/http_guard.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace mechinterp {
namespace {

bool IsSameOrigin(const std::string& origin, const std::string& host) {
  const size_t scheme = origin.find("://");
  return scheme != std::string::npos && absl::EqualsIgnoreCase(origin.substr(scheme + 3), host);
}

}  // namespace

std::string HostWithoutPort(const std::string& host) {
  const size_t colon = host.rfind(':');
  const size_t bracket = host.rfind(']');
  const bool has_port = colon != std::string::npos && (bracket == std::string::npos || bracket < colon);
  return absl::AsciiStrToLower(has_port ? host.substr(0, colon) : host);
}

std::optional<HttpRefusal> CheckNames(const HttpNames& names, const char* host, const char* origin) {
  const auto is_allowed = [&](const std::string& name) {
    return std::find(names.allowed.begin(), names.allowed.end(), name) != names.allowed.end();
  };
  if (host != nullptr && !names.allowed.empty() && !is_allowed(HostWithoutPort(host))) {
    return HttpRefusal{421, absl::StrCat("This server does not answer to that name. Ask for ",
                                         names.allowed.front(), ".\n")};
  }
  if (origin != nullptr && (host == nullptr || !IsSameOrigin(origin, host))) {
    return HttpRefusal{403, "Pages of other origins are not answered.\n"};
  }
  return std::nullopt;
}

}  // namespace mechinterp
