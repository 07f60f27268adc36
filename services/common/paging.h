#ifndef SERVICES_COMMON_PAGING_H_
#define SERVICES_COMMON_PAGING_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "google/protobuf/message_lite.h"
#include "services/common/violations.h"

namespace mechinterp {

// How much is sent at a time. No message outgrows what a gRPC client takes by default;
// what may is cut into pieces: streams into messages, lists into pages (AIP-158).

inline constexpr size_t kMaxMessageBytes = 4 << 20;
inline constexpr size_t kPieceBytes = 1 << 20;

// The bytes that `entry` adds to the message whose repeated field it joins, at most.
size_t EntryBytes(const google::protobuf::MessageLite& entry);

// One page in the making. Not thread-safe.
class Page {
 public:
  // Of at most `max_entries`; 0: as many as fit. What is wrong with a negative number
  // goes into `at`.
  Page(int64_t max_entries, const FieldViolations& at);

  // Whether `entry` still belongs to the page, whose part it then is. The first one
  // always does.
  bool Take(const google::protobuf::MessageLite& entry);

 private:
  const int64_t max_entries_;
  int64_t entries_ = 0;
  size_t bytes_ = 0;
};

// Where a page ended: what its last entry is sorted by, and what tells it from others
// of the same. Entries may come and go between two pages.
struct PagePosition {
  int64_t order = 0;
  std::string id;

  bool operator<(const PagePosition& other) const {
    return std::tie(order, id) < std::tie(other.order, other.id);
  }
};

// What clients pass on unread.
std::string PageToken(const PagePosition& last);
// Nothing for the empty token, which asks for the first page. A text that is no token
// goes into `at`.
std::optional<PagePosition> ReadPageToken(const std::string& token, const FieldViolations& at);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_PAGING_H_
