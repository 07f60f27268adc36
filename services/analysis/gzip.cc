#include "services/analysis/gzip.h"

#include <zlib.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace mechinterp {
namespace {

constexpr int kGzipWindow = 15 + 16;  // the largest window; 16 asks for gzip's header
constexpr int kMemoryLevel = 8;       // zlib's default

// The weight that ";q=0.5" gives; 1 without it.
double WeightOf(absl::string_view parameters) {
  for (absl::string_view parameter : absl::StrSplit(parameters, ';')) {
    parameter = absl::StripAsciiWhitespace(parameter);
    double weight = 0;
    if (absl::StartsWithIgnoreCase(parameter, "q=")) {
      return absl::SimpleAtod(parameter.substr(2), &weight) ? weight : 0;
    }
  }
  return 1;
}

}  // namespace

absl::StatusOr<std::string> Gzip(std::string_view text) {
  z_stream stream = {};
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzipWindow, kMemoryLevel,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return absl::ResourceExhaustedError("no memory to compress with");
  }
  const absl::Cleanup end = [&stream] { deflateEnd(&stream); };
  std::string compressed(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(compressed.data());
  stream.avail_out = static_cast<uInt>(compressed.size());
  if (deflate(&stream, Z_FINISH) != Z_STREAM_END) return absl::InternalError("cannot compress");
  compressed.resize(stream.total_out);
  return compressed;
}

bool AcceptsGzip(std::string_view accept_encoding) {
  const absl::string_view header(accept_encoding.data(), accept_encoding.size());
  for (const absl::string_view coding : absl::StrSplit(header, ',')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(coding, absl::MaxSplits(';', 1));
    if (absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(parts.first), "gzip")) {
      return WeightOf(parts.second) > 0;
    }
  }
  return false;
}

}  // namespace mechinterp
