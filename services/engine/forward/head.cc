#include "services/engine/forward/head.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>

#include "services/engine/forward/hooked_arithmetic.h"
#include "services/engine/forward/pass_errors.h"
#include "services/engine/weights/pass_scratch.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {
namespace {

// Of an item's last rows.
int64_t WantedLogits(const Batch::Item& item) {
  const GradientPlan* gradient = item.segment->gradient.get();
  const int64_t read = gradient == nullptr ? 0 : std::min<int64_t>(gradient->metric_rows, item.rows);
  switch (item.segment->logits_rows) {
    case LogitsRows::kNone:
      return read;
    case LogitsRows::kLast:
      return std::max<int64_t>(read, 1);
    case LogitsRows::kAll:
      break;
  }
  return item.rows;
}

bool AreFinite(const float* values, int64_t count) {
  constexpr uint32_t kExponent = 0x7f800000;  // all ones in infinities and NaNs only
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) finite &= (std::bit_cast<uint32_t>(values[i]) & kExponent) != kExponent;
  return finite;
}

// Hooks, then hands out those of an item's logits that are among rows
// [first, first + count) of the head; `logits` [count, width]. Returns the first row of the
// head among them that is not finite.
std::optional<int64_t> FinishLogits(const Batch::Item& item, int64_t first, int64_t count, int64_t width,
                                    float* logits) {
  const int64_t begin = std::max(first, item.first_row);
  const int64_t end = std::min(first + count, item.first_row + item.rows);
  if (begin >= end) return std::nullopt;
  float* rows = logits + (begin - first) * width;
  const Batch::Item part{item.segment, begin, end - begin,
                         item.first_position + static_cast<int>(begin - item.first_row)};
  const HookSite site{HookPoint::kLogits, 0};
  if (Batch::Wants(part, site)) {
    Batch::EditItem(part, site, rows, 1, width);
    Batch::CaptureItem(part, site, rows, 1, width);
  }
  const int64_t first_wanted = std::max(begin, item.first_row + item.rows - WantedLogits(item));
  if (first_wanted >= end) return std::nullopt;
  const int64_t skipped = item.first_row + item.rows - WantedLogits(item);
  std::memcpy(item.segment->logits.values.data() + (first_wanted - skipped) * width,
              rows + (first_wanted - begin) * width, (end - first_wanted) * width * sizeof(float));
  for (int64_t row = first_wanted; row < end; ++row) {
    if (!AreFinite(rows + (row - begin) * width, width)) return row;
  }
  return std::nullopt;
}

// Tells a segment why its logits of a row of the head are not finite.
void Explain(const Batch& batch, const Batch::Item& item, int64_t row, const NormScales& norm_scales,
             Arithmetic& math) {
  absl::Status& status = item.segment->logits_status;
  if (!status.ok()) return;
  const auto position = [](const Batch::Item& of, int64_t at) {
    return of.first_position + static_cast<int>(at - of.first_row);
  };
  NotFinite found;
  found.logits_position = position(item, row);
  const Batch::Item& whole =
      *std::find_if(batch.items().begin(), batch.items().end(),
                    [&](const Batch::Item& each) { return each.segment == item.segment; });
  if (const auto origin = norm_scales.FirstNotFinite(whole.first_row, whole.rows)) {
    found.norm = origin->norm;
    found.position = position(whole, origin->row);
  } else {
    math.WithHostRows({Slot::kScale, row, 1, 1}, [&](const float* scale) {
      if (!std::isfinite(*scale)) found.norm = HookSite{HookPoint::kLnFinalScale, 0};
      return false;
    });
    found.position = found.logits_position;
  }
  status = NotFiniteError(found);
}

// `head` holds a suffix of each of some of the batch's items, in their order.
Rows GatherRows(const Batch& batch, const Rows& residual, const Batch& head, Arithmetic& math) {
  const Rows rows = math.Allocate(Slot::kHeadRows, head.row_count(), residual.width);
  auto item = batch.items().begin();
  for (const Batch::Item& part : head.items()) {
    while (item->segment != part.segment) ++item;
    const int64_t skipped = item->rows - part.rows;
    math.Copy(residual.Part(item->first_row + skipped, part.rows), rows.Part(part.first_row, part.rows));
  }
  return rows;
}

// A segment that is used again allocates nothing.
void MakeRoom(const Batch::Item& item, int64_t width) {
  item.segment->logits_status = absl::OkStatus();
  if (WantedLogits(item) == 0) return;
  HostTensor& logits = item.segment->logits;
  logits.shape = {WantedLogits(item), width};
  logits.values.resize(ElementCount(logits.shape));
}

}  // namespace

bool RunHead(const Model& model, const Batch& batch, const Rows& residual, const NormScales& norm_scales,
             Arithmetic& math) {
  const Batch head = batch.HeadRows();
  if (head.row_count() == 0) return false;
  const int64_t width = model.config().vocabulary_size;
  HookedArithmetic steps(model.config(), head, math);
  const Rows normalized =
      steps.Normalize(GatherRows(batch, residual, head, math), model.weights().ln_final_gain,
                      HookPoint::kLnFinalScale, HookPoint::kLnFinalNormalized, /*layer=*/0);
  for (const Batch::Item& item : head.items()) MakeRoom(item, width);
  for (int64_t first = 0; first < head.row_count(); first += kHeadRowsPerBlock) {
    const int64_t count = std::min(kHeadRowsPerBlock, head.row_count() - first);
    const Rows logits =
        steps.Project(normalized.Part(first, count), model.weights().unembedding, Slot::kLogits);
    math.WithHostRows(logits, [&](float* rows) {
      for (const Batch::Item& item : head.items()) {
        const std::optional<int64_t> bad = FinishLogits(item, first, count, width, rows);
        if (bad.has_value()) Explain(batch, item, *bad, norm_scales, math);
      }
      return false;  // nothing reads them after this
    });
  }
  return true;
}

}  // namespace mechinterp::engine
