#ifndef SERVICES_ANALYSIS_GZIP_H_
#define SERVICES_ANALYSIS_GZIP_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace mechinterp {

// `text` in gzip's format, at zlib's usual level: some 30 ms a megabyte. Pure.
// ResourceExhausted when there is no memory for it.
absl::StatusOr<std::string> Gzip(std::string_view text);

// Whether a request with this Accept-Encoding takes gzip. Pure.
bool AcceptsGzip(std::string_view accept_encoding);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_GZIP_H_
