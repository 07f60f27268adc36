#include "services/engine/operations/memory_estimate.h"

#include <algorithm>
#include <map>
#include <utility>

#include "services/engine/weights/pass_scratch.h"

namespace mechinterp::engine {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

int64_t LogitsBytes(const ModelConfig& config, int64_t rows) {
  return rows * config.vocabulary_size * kFloatBytes;
}

// Logits of the rows in which openings are read, all but the first token of each.
int64_t OpeningBytes(const ModelConfig& config, const MetricOptions& metrics) {
  int64_t rows = 0;
  for (const auto* openings : {&metrics.refusal_openings, &metrics.compliance_openings}) {
    for (const std::vector<TokenId>& opening : *openings) rows += static_cast<int64_t>(opening.size()) - 1;
  }
  return LogitsBytes(config, rows);
}

// Values from which a sweep's run starts at a position.
int64_t EntryWidth(const ModelConfig& config, HookPoint point) {
  return config.d_model + (point == HookPoint::kResidPre ? 0 : ShapeOf(point, config).size());
}

// What the clean run has where the sweep's runs enter.
int64_t EntryRowBytes(const ModelConfig& config, int64_t prompt_length,
                      const std::vector<EntryPoint>& entries) {
  std::map<std::pair<int, HookPoint>, int64_t> rows_at;
  for (const EntryPoint& entry : entries) {
    if (entry.IsBeginning()) continue;
    int64_t& rows = rows_at[{entry.layer, entry.point}];
    rows = std::max(rows, std::max<int64_t>(1, prompt_length - entry.position));
  }
  int64_t values = 0;
  for (const auto& [place, rows] : rows_at) values += rows * EntryWidth(config, place.second);
  return values * kFloatBytes;
}

// Beyond what plans keep: scores and patterns are laid out for a whole prompt, which
// then runs in one piece (SegmentChunks::CanSplit); heads' results before and after.
int64_t HookBytes(const ModelConfig& config, const PlanCompiler& compiler) {
  int64_t bytes = 0;
  const int64_t attended =
      std::max(compiler.LongestRunWith(HookPoint::kAttnScores), compiler.LongestRunWith(HookPoint::kPattern));
  if (attended > 0) {
    bytes += attended * attended * config.head_count * kFloatBytes + ScratchBytes(config, attended);
  }
  bytes += 2 * int64_t{compiler.LongestRunWith(HookPoint::kResult)} * config.head_count * config.d_model *
           kFloatBytes;
  return bytes;
}

}  // namespace

int64_t KeyValueBytes(const ModelConfig& config, int64_t positions) {
  return 2 * positions * config.layer_count() * config.key_value_width() * kFloatBytes;
}

int64_t ActivationBytes(const ModelConfig& config, const std::vector<HookSite>& sites, int64_t positions,
                        int64_t prompt_length) {
  int64_t values = 0;
  for (const HookSite& site : sites) {
    values += ElementCount(PublicShape(site.point, config, positions, prompt_length));
  }
  return values * kFloatBytes;
}

int64_t PlanBytes(const ModelConfig& config, const PlanCompiler& compiler) {
  int64_t bytes = compiler.ValueBytes();
  for (const SourceRunRequest& run : compiler.source_runs()) {
    bytes += ActivationBytes(config, {run.sites.begin(), run.sites.end()},
                             static_cast<int64_t>(run.positions.size()), run.prompt.length());
  }
  return bytes + HookBytes(config, compiler);
}

int64_t GenerationBytes(const ModelConfig& config, int64_t prompt_length, int64_t new_tokens) {
  return KeyValueBytes(config, prompt_length + new_tokens) + LogitsBytes(config, 1);
}

int64_t PatchRunBytes(const ModelConfig& config, int64_t prompt_length, int64_t new_tokens,
                      const MetricOptions& metrics) {
  return 2 * GenerationBytes(config, prompt_length, new_tokens) + OpeningBytes(config, metrics);
}

int64_t SweepBytes(const ModelConfig& config, int64_t prompt_length, int64_t source_length,
                   const std::vector<EntryPoint>& entries, const MetricOptions& metrics, int64_t batch_rows) {
  int64_t widest_run = 1, entry_width = config.d_model;
  for (const EntryPoint& entry : entries) {
    widest_run = std::max(widest_run, prompt_length - entry.position);
    entry_width = std::max(entry_width, EntryWidth(config, entry.point));
  }
  const int64_t rows = std::max(batch_rows, widest_run);
  const int64_t runs = std::min<int64_t>(rows, static_cast<int64_t>(entries.size()));
  int64_t bytes = KeyValueBytes(config, prompt_length + source_length) +
                  EntryRowBytes(config, prompt_length, entries) +
                  // the clean run's, twice as floats and once as doubles, the source's, the batch's
                  LogitsBytes(config, 5 + runs) + rows * entry_width * kFloatBytes;
  if (metrics.has_openings()) {
    // Each run keeps its own keys and values; one at a time is put together.
    bytes += KeyValueBytes(config, rows + prompt_length) + OpeningBytes(config, metrics);
  }
  return bytes;
}

}  // namespace mechinterp::engine
