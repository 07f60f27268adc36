#ifndef SERVICES_ENGINE_FORWARD_BATCH_H_
#define SERVICES_ENGINE_FORWARD_BATCH_H_

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "services/engine/forward/segment.h"

namespace mechinterp::engine {

// The segments of one forward pass, packed: row by row, those that enter
// earliest first, so that the rows in the pass are always a prefix.
class Batch {
 public:
  // A segment's rows in the batch.
  struct Item {
    Segment* segment;
    int64_t first_row;
    int64_t rows;
    int first_position;  // of the first row, in its sequence
  };

  explicit Batch(absl::Span<Segment* const> segments);

  // The rows whose logits, or final norm, somebody reads: of each segment the
  // last so many. Items in the same order; segments nobody reads are left out.
  Batch HeadRows() const;

  int64_t row_count() const { return row_count_; }
  // Rows and items that have entered at a point of a layer, or before.
  int64_t RowsAt(const HookSite& site) const;
  absl::Span<const Item> ItemsAt(const HookSite& site) const;
  // Those that enter just there.
  absl::Span<const Item> ItemsEntering(const HookSite& site) const;
  absl::Span<const Item> items() const { return items_; }

  // Whether any segment edits or captures at this site.
  bool Wants(const HookSite& site) const { return hooks_.count(site) > 0; }
  // Whether this item does.
  static bool Edits(const Item& item, const HookSite& site);
  static bool Wants(const Item& item, const HookSite& site);
  // The heads that its edits at a site touch.
  static std::set<int> EditedHeads(const Item& item, const HookSite& site);

  // Applies the segments' edits and captures at a site, where the activation has rows
  // of `heads` x `width`. `look` shows rows [first, first + count) to a function, and
  // keeps what it changed if that returns true.
  using Changes = absl::FunctionRef<bool(float*)>;
  using Look = absl::FunctionRef<void(int64_t first, int64_t count, Changes function)>;
  void Hook(const HookSite& site, int64_t heads, int64_t width, Look look) const;
  // The same for one segment's rows, in two steps; nothing where it has no plan.
  static void EditItem(const Item& item, const HookSite& site, float* data, int64_t heads, int64_t width);
  static void CaptureItem(const Item& item, const HookSite& site, const float* data, int64_t heads,
                          int64_t width);

 private:
  Batch() = default;
  void AddItem(Segment* segment, int64_t rows, int first_position);

  std::vector<Item> items_;
  int64_t row_count_ = 0;
  std::map<HookSite, std::vector<Item>> hooks_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_BATCH_H_
