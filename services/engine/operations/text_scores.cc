#include "services/engine/operations/text_scores.h"

#include <algorithm>
#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::engine {
namespace {

constexpr int kRowsOfAText = 128;   // in one pass
constexpr int kRowsOfABatch = 256;  // of all texts

int RowsAtOnce(const TextToScore& text) { return std::min(text.length(), kRowsOfAText); }

// Where the batch ends that begins with text `first`; one text at least.
size_t EndOfBatch(absl::Span<const TextToScore> texts, size_t first) {
  int rows = 0;
  size_t end = first;
  while (end < texts.size() && (end == first || rows + RowsAtOnce(texts[end]) <= kRowsOfABatch)) {
    rows += RowsAtOnce(texts[end++]);
  }
  return end;
}

// One text on its way through the model: its tokens but the last, which nothing is asked after.
class ScoredText {
 public:
  ScoredText(const ModelConfig& config, const TextToScore& text)
      : text_(text), cache_(std::make_shared<KvCache>(config)) {
    cache_->Reserve(text.length() - 1);
  }

  bool is_done() const { return next_ == text_.length() - 1; }
  const std::vector<double>& log_probabilities() const { return log_probabilities_; }

  // The next rows; those of the prompt and those after it are never in one segment.
  Segment* Next() {
    const int prompt_length = text_.prompt.length();
    const int part_end = next_ < prompt_length ? std::min(prompt_length, text_.length() - 1)  //
                                               : text_.length() - 1;
    const int end = std::min(part_end, next_ + kRowsOfAText);
    segment_ = Segment();
    for (int position = next_; position < end; ++position) segment_.tokens.push_back(text_.token(position));
    segment_.first_position = next_;
    segment_.prompt_length = prompt_length;
    segment_.cache = cache_;
    segment_.plan = text_.plan;
    // The row before the first token that is scored is the first to be read.
    if (next_ + 1 >= text_.first_scored()) {
      segment_.logits_rows = LogitsRows::kAll;
    } else if (end == text_.first_scored()) {
      segment_.logits_rows = LogitsRows::kLast;
    }
    next_ = end;
    return &segment_;
  }

  // What the rows say that have run.
  void Read() {
    if (segment_.logits_rows == LogitsRows::kNone) return;
    const int64_t rows = segment_.logits.shape[0], vocabulary = segment_.logits.shape[1];
    for (int64_t row = 0; row < rows; ++row) {
      const auto position = static_cast<int>(next_ - rows + row + 1);
      const absl::Span<const float> logits(segment_.logits.values.data() + row * vocabulary, vocabulary);
      log_probabilities_.push_back(LogProbability(logits, text_.token(position)));
    }
    segment_.logits = HostTensor();
  }

 private:
  const TextToScore& text_;
  std::shared_ptr<KvCache> cache_;
  Segment segment_;
  int next_ = 0;  // position
  std::vector<double> log_probabilities_;
};

absl::Status RunBatch(RunContext& context, std::vector<ScoredText>& batch) {
  while (true) {
    std::vector<Segment*> segments;
    std::vector<ScoredText*> running;
    for (ScoredText& text : batch) {
      if (text.is_done()) continue;
      segments.push_back(text.Next());
      running.push_back(&text);
    }
    if (segments.empty()) return absl::OkStatus();
    ABSTRACT_RETURN_IF_ERROR(context.Run(segments));
    for (ScoredText* text : running) text->Read();
  }
}

}  // namespace

absl::Status ScoreTexts(
    RunContext& context, absl::Span<const TextToScore> texts,
    const std::function<absl::Status(size_t index, const std::vector<double>& log_probabilities)>& sink) {
  size_t end = 0;
  for (size_t first = 0; first < texts.size(); first = end) {
    end = EndOfBatch(texts, first);
    std::vector<ScoredText> batch;
    for (size_t i = first; i < end; ++i) batch.emplace_back(context.executor.model().config(), texts[i]);
    ABSTRACT_RETURN_IF_ERROR(RunBatch(context, batch));
    for (size_t i = first; i < end; ++i) {
      ABSTRACT_RETURN_IF_ERROR(sink(i, batch[i - first].log_probabilities()));
    }
  }
  return absl::OkStatus();
}

int64_t TextScoreBytes(const ModelConfig& config, absl::Span<const TextToScore> texts) {
  int64_t most = 0;
  size_t end = 0;
  for (size_t first = 0; first < texts.size(); first = end) {
    end = EndOfBatch(texts, first);
    int64_t rows = 0, bytes = 0;
    for (size_t i = first; i < end; ++i) {
      constexpr int64_t kTextBytes = 4 << 10;
      const int64_t length = texts[i].length();
      rows += RowsAtOnce(texts[i]);
      bytes += kTextBytes + KeyValueBytes(config, length) + 2 * length * int64_t{sizeof(double)};
    }
    most = std::max(most, bytes + rows * config.vocabulary_size * int64_t{sizeof(float)});
  }
  return most;
}

}  // namespace mechinterp::engine
