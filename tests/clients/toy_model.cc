#include "tests/clients/toy_model.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_split.h"
#include "services/common/status_macros.h"

namespace mechinterp::testing {
namespace {

double Weight(int layer, int unit) {
  if (layer == 2 && unit == 1) return 4;
  if (layer == 1 && unit == 0) return 1;
  if (layer == 3 && unit >= kHeads + 8 && unit < kHeads + 16) return 3.0 / 8;
  return 0;
}

double Strength(const v1::TokenizeResponse& tokens) {
  double strength = 0;
  for (const std::string& piece : tokens.pieces()) {
    if (piece == "bomb") strength = std::max(strength, 1.0);
    if (piece == "megabomb") strength = std::max(strength, 2.0);
  }
  return strength;
}

int DecisionBegin(const ToyRun& run) { return std::max(0, run.length() - kTailLength - 1); }

// (layer, unit) of what a selector at a site touches.
std::vector<std::pair<int, int>> UnitsOf(const v1::Intervention& intervention) {
  std::vector<std::pair<int, int>> units;
  const v1::HookSite& site = intervention.site();
  const v1::Selector& selector = intervention.selector();
  const auto add = [&](int layer, int begin, int end, const auto& chosen) {
    for (int unit = begin; unit < end; ++unit) {
      const bool is_chosen =
          chosen.empty() || std::count(chosen.begin(), chosen.end(), static_cast<uint32_t>(unit - begin)) > 0;
      if (is_chosen) units.emplace_back(layer, unit);
    }
  };
  const int layer = static_cast<int>(site.layer());
  const google::protobuf::RepeatedField<uint32_t> all;
  if (site.point() == v1::HOOK_POINT_Z) add(layer, 0, kHeads, selector.heads());
  if (site.point() == v1::HOOK_POINT_ATTN_OUT) add(layer, 0, kHeads, all);
  if (site.point() == v1::HOOK_POINT_MLP_POST) add(layer, kHeads, kHeads + kNeurons, selector.dims());
  if (site.point() == v1::HOOK_POINT_MLP_OUT) add(layer, kHeads, kHeads + kNeurons, all);
  if (site.point() == v1::HOOK_POINT_RESID_PRE) {
    for (int below = 0; below < layer; ++below) add(below, 0, kHeads + kNeurons, all);
  }
  return units;
}

std::vector<int> PositionsOf(const v1::PositionSelector& selector, int length) {
  std::set<int> positions;
  for (const int index : selector.indices()) positions.insert(index < 0 ? length + index : index);
  for (const int named : selector.named()) {
    if (named == v1::NAMED_POSITION_LAST) positions.insert(length - 1);
    if (named == v1::NAMED_POSITION_LAST_INSTRUCTION) positions.insert(length - kTailLength - 1);
    if (named == v1::NAMED_POSITION_TEMPLATE_TAIL) {
      for (int i = length - kTailLength; i < length; ++i) positions.insert(i);
    }
  }
  if (selector.indices().empty() && selector.named().empty()) {
    for (int i = 0; i < length; ++i) positions.insert(i);
  }
  return {positions.begin(), positions.end()};
}

// The value that an edit puts at (layer, unit, position).
using NewValue = std::function<double(int layer, int unit, int position)>;

absl::StatusOr<std::vector<ToyRun>> FindAll(
    const google::protobuf::RepeatedPtrField<v1::ActivationSource>& sources, const SourceFinder& find) {
  std::vector<ToyRun> runs;
  for (const v1::ActivationSource& source : sources) {
    ABSTRACT_ASSIGN_OR_RETURN(runs.emplace_back(), find(source));
  }
  if (runs.empty()) return absl::InvalidArgumentError("no sources");
  return runs;
}

NewValue FromEnd(ToyRun source, int target_length) {
  return [source = std::move(source), target_length](int layer, int unit, int position) {
    const size_t at = static_cast<size_t>(position - target_length + source.length());
    return source.units[static_cast<size_t>(layer)][static_cast<size_t>(unit)].at(at);
  };
}

double MeanOverAll(const std::vector<ToyRun>& runs, const v1::PositionSelector& selector, int layer,
                   int unit) {
  double sum = 0;
  int count = 0;
  for (const ToyRun& run : runs) {
    for (const int position : PositionsOf(selector, run.length())) {
      sum += run.units[static_cast<size_t>(layer)][static_cast<size_t>(unit)][static_cast<size_t>(position)];
      ++count;
    }
  }
  return sum / count;
}

absl::StatusOr<NewValue> ValueOf(const v1::Intervention& intervention, const SourceFinder& find, int length) {
  if (intervention.has_zeroing()) return NewValue([](int, int, int) { return 0; });
  if (intervention.has_replacement()) {
    ABSTRACT_ASSIGN_OR_RETURN(ToyRun source, find(intervention.replacement().source()));
    return FromEnd(std::move(source), length);
  }
  if (intervention.has_resampling()) {
    ABSTRACT_ASSIGN_OR_RETURN(std::vector<ToyRun> runs, FindAll(intervention.resampling().sources(), find));
    return FromEnd(runs[intervention.resampling().seed() % runs.size()], length);
  }
  if (!intervention.has_mean_replacement()) return absl::UnimplementedError("an edit the toy does not know");
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<ToyRun> runs,
                            FindAll(intervention.mean_replacement().sources(), find));
  if (intervention.mean_replacement().axis() == v1::MEAN_AXIS_SOURCES) {
    return NewValue([runs, length](int layer, int unit, int position) {
      double sum = 0;
      for (const ToyRun& run : runs) sum += FromEnd(run, length)(layer, unit, position);
      return sum / static_cast<double>(runs.size());
    });
  }
  return NewValue([runs, selector = intervention.selector().positions()](int layer, int unit, int) {
    return MeanOverAll(runs, selector, layer, unit);
  });
}

}  // namespace

ToyTokenizer::ToyTokenizer() {
  for (const char* word : {"<|begin_of_text|>", "<|start_header_id|>", "user", "<|end_header_id|>", "\n\n",
                           "<|eot_id|>", "assistant", "I", "Here", "Sure"}) {
    Id(word);
  }
}

uint32_t ToyTokenizer::Id(const std::string& word) {
  const auto [found, is_new] = ids_.try_emplace(word, static_cast<uint32_t>(words_.size()));
  if (is_new) words_.push_back(word);
  return found->second;
}

v1::TokenizeResponse ToyTokenizer::Tokenize(const v1::Prompt& prompt, bool omit_begin_of_text) {
  std::vector<std::string> words;
  const auto add_text = [&](const std::string& text) {
    const std::vector<std::string> parts = absl::StrSplit(text, ' ', absl::SkipEmpty());
    words.insert(words.end(), parts.begin(), parts.end());
  };
  v1::TokenizeResponse response;
  if (prompt.has_token_ids()) {
    *response.mutable_ids() = prompt.token_ids().ids();
    return response;
  }
  if (!omit_begin_of_text) words.push_back("<|begin_of_text|>");
  if (prompt.has_text()) {
    add_text(prompt.text());
  } else {
    words.insert(words.end(), {"<|start_header_id|>", "user", "<|end_header_id|>", "\n\n"});
    add_text(prompt.chat().messages().rbegin()->content());
    response.set_last_instruction_position(static_cast<uint32_t>(words.size() - 1));
    words.insert(words.end(),
                 {"<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"});
  }
  for (const std::string& word : words) {
    response.add_ids(Id(word));
    response.add_pieces(word);
  }
  return response;
}

ToyRun RunClean(const v1::TokenizeResponse& tokens) {
  ToyRun run;
  run.tokens = tokens;
  std::vector<double> values(static_cast<size_t>(tokens.ids_size()), 0);
  if (tokens.has_last_instruction_position()) {
    std::fill(values.begin() + DecisionBegin(run), values.end(), Strength(tokens));
  }
  run.units.assign(kLayers, std::vector<std::vector<double>>(kHeads + kNeurons, values));
  return run;
}

double ToyRun::logit_difference() const {
  double sum = 0;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int unit = 0; unit < kHeads + kNeurons; ++unit) {
      const std::vector<double>& values = units[static_cast<size_t>(layer)][static_cast<size_t>(unit)];
      const double total = std::accumulate(values.begin() + DecisionBegin(*this), values.end(), 0.0);
      sum += Weight(layer, unit) * total / (kTailLength + 1);
    }
  }
  return sum - kThreshold;
}

absl::Status Apply(const v1::Intervention& intervention, const SourceFinder& find, ToyRun& run) {
  ABSTRACT_ASSIGN_OR_RETURN(const NewValue value, ValueOf(intervention, find, run.length()));
  if (intervention.selector().scope() == v1::INTERVENTION_SCOPE_GENERATED) return absl::OkStatus();
  for (const auto& [layer, unit] : UnitsOf(intervention)) {
    for (const int position : PositionsOf(intervention.selector().positions(), run.length())) {
      run.units[static_cast<size_t>(layer)][static_cast<size_t>(unit)][static_cast<size_t>(position)] =
          value(layer, unit, position);
    }
  }
  return absl::OkStatus();
}

}  // namespace mechinterp::testing
