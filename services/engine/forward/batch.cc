#include "services/engine/forward/batch.h"

#include <algorithm>
#include <utility>

#include "services/engine/interventions/apply_hooks.h"

namespace mechinterp::engine {
namespace {

// In the order of the forward pass.
std::pair<int, HookPoint> Order(const HookSite& site) { return {site.layer, site.point}; }
std::pair<int, HookPoint> Entry(const Segment& segment) { return {segment.entry_layer, segment.entry_point}; }

}  // namespace

Batch::Batch(absl::Span<Segment* const> segments) {
  std::vector<Segment*> ordered(segments.begin(), segments.end());
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const Segment* a, const Segment* b) { return Entry(*a) < Entry(*b); });
  for (Segment* segment : ordered) AddItem(segment, segment->length(), segment->first_position);
}

void Batch::AddItem(Segment* segment, int64_t rows, int first_position) {
  items_.push_back({segment, row_count_, rows, first_position});
  row_count_ += rows;
  if (segment->plan == nullptr) return;
  for (const auto& [site, edits] : segment->plan->edits) {
    hooks_[site].push_back(items_.back());
  }
  for (const auto& [site, capture] : segment->plan->captures) {
    if (segment->plan->edits.count(site) == 0) hooks_[site].push_back(items_.back());
  }
}

Batch Batch::HeadRows() const {
  Batch head;
  for (const Item& item : items_) {
    const int end = item.first_position + static_cast<int>(item.rows);
    int first = end;  // first position that somebody reads
    if (item.segment->logits_rows == LogitsRows::kLast) first = end - 1;
    if (item.segment->logits_rows == LogitsRows::kAll) first = item.first_position;
    if (item.segment->gradient != nullptr) {
      first = std::max(item.first_position, std::min(first, end - item.segment->gradient->metric_rows));
    }
    if (item.segment->plan != nullptr) {
      for (const auto& [site, capture] : item.segment->plan->captures) {
        if (PartOf(site.point) != PassPart::kHead || capture.positions.empty()) continue;
        first = std::min(first, std::max(capture.positions.front(), item.first_position));
      }
    }
    if (first < end) head.AddItem(item.segment, end - first, first);
  }
  return head;
}

int64_t Batch::RowsAt(const HookSite& site) const {
  const absl::Span<const Item> entered = ItemsAt(site);
  return entered.empty() ? 0 : entered.back().first_row + entered.back().rows;
}

absl::Span<const Batch::Item> Batch::ItemsAt(const HookSite& site) const {
  auto end =
      std::upper_bound(items_.begin(), items_.end(), Order(site),
                       [](const auto& order, const Item& item) { return order < Entry(*item.segment); });
  return absl::MakeConstSpan(items_.data(), end - items_.begin());
}

absl::Span<const Batch::Item> Batch::ItemsEntering(const HookSite& site) const {
  const absl::Span<const Item> entered = ItemsAt(site);
  auto begin =
      std::lower_bound(entered.begin(), entered.end(), Order(site),
                       [](const Item& item, const auto& order) { return Entry(*item.segment) < order; });
  return entered.subspan(begin - entered.begin());
}

bool Batch::Edits(const Item& item, const HookSite& site) {
  return item.segment->plan != nullptr && item.segment->plan->edits.count(site) > 0;
}

bool Batch::Wants(const Item& item, const HookSite& site) {
  return Edits(item, site) || (item.segment->plan != nullptr && item.segment->plan->captures.count(site) > 0);
}

std::set<int> Batch::EditedHeads(const Item& item, const HookSite& site) {
  std::set<int> heads;
  if (!Edits(item, site)) return heads;
  for (const CompiledEdit& edit : item.segment->plan->edits.at(site)) {
    heads.insert(edit.heads.begin(), edit.heads.end());
  }
  return heads;
}

void Batch::Hook(const HookSite& site, int64_t heads, int64_t width, Look look) const {
  auto found = hooks_.find(site);
  if (found == hooks_.end()) return;
  for (const Item& item : found->second) {
    // A segment that enters later has no rows here yet, or never had embeddings.
    if (HasLayer(site.point) && Entry(*item.segment) > Order(site)) continue;
    if (PartOf(site.point) == PassPart::kEmbedding && item.segment->tokens.empty()) continue;
    look(item.first_row, item.rows, [&](float* data) {
      EditItem(item, site, data, heads, width);
      CaptureItem(item, site, data, heads, width);
      return Edits(item, site);
    });
  }
}

void Batch::EditItem(const Item& item, const HookSite& site, float* data, int64_t heads, int64_t width) {
  if (!Edits(item, site)) return;
  const HookPlan& plan = *item.segment->plan;
  for (const CompiledEdit& edit : plan.edits.at(site)) {
    ApplyEdit(edit, plan.prompt_length, data, {item.first_position, item.rows, heads, width});
  }
}

void Batch::CaptureItem(const Item& item, const HookSite& site, const float* data, int64_t heads,
                        int64_t width) {
  if (item.segment->plan == nullptr) return;
  const HookPlan& plan = *item.segment->plan;
  auto capture = plan.captures.find(site);
  if (capture == plan.captures.end()) return;
  Capture(capture->second, data, {item.first_position, item.rows, heads, width},
          item.segment->activations[site]);
}

}  // namespace mechinterp::engine
