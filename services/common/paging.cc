#include "services/common/paging.h"

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace mechinterp {

size_t EntryBytes(const google::protobuf::MessageLite& entry) {
  constexpr size_t kTagAndLength = 6;
  return entry.ByteSizeLong() + kTagAndLength;
}

Page::Page(int64_t max_entries, const FieldViolations& at) : max_entries_(max_entries) {
  if (max_entries < 0) at.Add("must not be negative");
}

bool Page::Take(const google::protobuf::MessageLite& entry) {
  const size_t bytes = EntryBytes(entry);
  const bool is_full = (max_entries_ > 0 && entries_ >= max_entries_) || bytes_ + bytes > kPieceBytes;
  if (entries_ > 0 && is_full) return false;
  ++entries_;
  bytes_ += bytes;
  return true;
}

std::string PageToken(const PagePosition& last) {
  return absl::WebSafeBase64Escape(absl::StrCat(last.order, " ", last.id));
}

std::optional<PagePosition> ReadPageToken(const std::string& token, const FieldViolations& at) {
  if (token.empty()) return std::nullopt;
  std::string text;
  PagePosition position;
  const bool is_base64 = absl::WebSafeBase64Unescape(token, &text);
  const size_t blank = text.find(' ');
  if (!is_base64 || blank == std::string::npos || !absl::SimpleAtoi(text.substr(0, blank), &position.order)) {
    at.Add("is no token of a page before");
    return std::nullopt;
  }
  position.id = text.substr(blank + 1);
  return position;
}

}  // namespace mechinterp
