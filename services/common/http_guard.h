#ifndef SERVICES_COMMON_HTTP_GUARD_H_
#define SERVICES_COMMON_HTTP_GUARD_H_

#include <optional>
#include <string>
#include <vector>

namespace mechinterp {

// "[::1]:80" → "[::1]", "LOCALHOST" → "localhost". Pure.
std::string HostWithoutPort(const std::string& host);

// What a server says to requests for its names: those that a browser sends for a page of another origin
// are refused, and those for a name that is not the server's, which somebody's page may have made to lead
// here (DNS rebinding).
struct HttpNames {
  std::vector<std::string> allowed;  // in lower case, without ports; empty: any
};

struct HttpRefusal {
  int status;
  std::string reason;
};

// `host` and `origin` are the headers'; null where there is none: no browser leaves the host out. Pure.
std::optional<HttpRefusal> CheckNames(const HttpNames& names, const char* host, const char* origin);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_HTTP_GUARD_H_
