#include "services/engine/forward/segment_chunks.h"

#include <utility>

#include "services/engine/forward/kv_cache.h"

namespace mechinterp::engine {
namespace {

void CopyRows(const HostTensor& all, int64_t begin, int64_t count, HostTensor& rows) {
  const int64_t width = all.shape[1];
  const auto first = all.values.begin() + begin * width;
  rows.shape = {count, width};
  rows.values.assign(first, first + count * width);
}

void AppendRows(const HostTensor& rows, HostTensor& all) {
  if (rows.values.empty()) return;
  if (all.values.empty()) all.shape = {0, rows.shape[1]};
  all.shape[0] += rows.shape[0];
  all.values.insert(all.values.end(), rows.values.begin(), rows.values.end());
}

}  // namespace

Segment* SegmentChunks::Next(int rows) {
  chunk_rows_ = rows;
  if (rows == whole_->length()) return whole_;
  if (chunk_ == nullptr) {
    cache_ = whole_->cache;
    if (cache_ == nullptr) {
      cache_ = std::make_shared<KvCache>(*config_);
      cache_->Reserve(whole_->length());
    }
    chunk_ = std::make_unique<Segment>();
    chunk_->entry_layer = whole_->entry_layer;
    chunk_->entry_point = whole_->entry_point;
    chunk_->shared = whole_->shared;
    chunk_->shared_length = whole_->shared_length;
    chunk_->cache = cache_;
    chunk_->plan = whole_->plan;
    chunk_->prompt_length = whole_->PromptLength();
    chunk_->key_width = whole_->first_position + whole_->length();
    whole_->logits = {};
    whole_->logits_status = absl::OkStatus();
    whole_->activations.clear();
  }
  const bool is_last = rows == rows_left();
  if (whole_->tokens.empty()) {
    CopyRows(whole_->residual, done_, rows, chunk_->residual);
    if (!whole_->branch.shape.empty()) CopyRows(whole_->branch, done_, rows, chunk_->branch);
  } else {
    const auto first = whole_->tokens.begin() + done_;
    chunk_->tokens.assign(first, first + rows);
  }
  chunk_->first_position = whole_->first_position + done_;
  chunk_->logits_rows =
      whole_->logits_rows == LogitsRows::kLast && !is_last ? LogitsRows::kNone : whole_->logits_rows;
  // Captures append to what the chunks before recorded.
  chunk_->activations = std::move(whole_->activations);
  return chunk_.get();
}

void SegmentChunks::TakeBack() {
  if (chunk_ != nullptr) whole_->activations = std::move(chunk_->activations);
}

void SegmentChunks::Collect() {
  if (chunk_ != nullptr) {
    AppendRows(chunk_->logits, whole_->logits);
    whole_->logits_status.Update(chunk_->logits_status);
    chunk_->logits = {};
    whole_->activations = std::move(chunk_->activations);
  }
  done_ += chunk_rows_;
}

}  // namespace mechinterp::engine
