#include "services/common/trace_context.h"

#include <cstdint>
#include <limits>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mechinterp {
namespace {

constexpr size_t kLength = 55;  // of version 00

bool IsHex(std::string_view text) { return text.find_first_not_of("0123456789abcdef") == text.npos; }

// An id of so many digits at this place; nothing where there is none.
std::optional<std::string> IdAt(std::string_view text, size_t begin, size_t digits) {
  const std::string_view id = text.substr(begin, digits);
  if (!IsHex(id) || id.find_first_not_of('0') == id.npos) return std::nullopt;
  return std::string(id);
}

std::string RandomDigits() {
  thread_local absl::BitGen random;
  return absl::StrFormat("%016x", absl::Uniform<uint64_t>(absl::IntervalClosed, random, 1,
                                                          std::numeric_limits<uint64_t>::max()));
}

}  // namespace

std::string TraceContext::ToTraceparent() const {
  return absl::StrCat("00-", trace_id, "-", span_id, is_sampled ? "-01" : "-00");
}

std::optional<TraceContext> ParseTraceparent(std::string_view text) {
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
  const std::string_view version = text.substr(0, 2);
  const std::string_view flags = text.substr(53, 2);
  if (!IsHex(version) || version == "ff" || !IsHex(flags)) return std::nullopt;
  if (text.size() > kLength && (version == "00" || text[kLength] != '-')) return std::nullopt;
  const std::optional<std::string> trace_id = IdAt(text, 3, 32);
  const std::optional<std::string> span_id = IdAt(text, 36, 16);
  if (!trace_id || !span_id) return std::nullopt;
  const bool is_odd = std::string_view("13579bdf").find(flags[1]) != std::string_view::npos;
  return TraceContext{*trace_id, *span_id, is_odd};
}

TraceContext NewTrace() { return {absl::StrCat(RandomDigits(), RandomDigits()), NewSpanId(), true}; }

std::string NewSpanId() { return RandomDigits(); }

}  // namespace mechinterp
