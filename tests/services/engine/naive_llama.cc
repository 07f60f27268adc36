#include "tests/services/engine/naive_llama.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numbers>
#include <variant>

#include "absl/strings/str_cat.h"
#include "services/engine/checkpoint/safetensors.h"

namespace mechinterp::engine {
namespace {

using Row = std::vector<double>;
using Rows = std::vector<Row>;
using Activation = NaiveLlama::Activation;

// y = x w^T, w [out, in].
Row Multiply(const Row& x, const std::vector<float>& w) {
  Row y(w.size() / x.size(), 0);
  for (size_t o = 0; o < y.size(); ++o) {
    for (size_t i = 0; i < x.size(); ++i) y[o] += x[i] * w[o * x.size() + i];
  }
  return y;
}

Activation Split(const Rows& rows, int heads) {
  Activation result;
  for (const Row& row : rows) {
    const size_t width = row.size() / heads;
    result.emplace_back();
    for (int h = 0; h < heads; ++h)
      result.back().emplace_back(row.begin() + h * width, row.begin() + (h + 1) * width);
  }
  return result;
}

Rows Join(const Activation& activation) {
  Rows rows;
  for (const auto& heads : activation) {
    rows.emplace_back();
    for (const Row& head : heads) rows.back().insert(rows.back().end(), head.begin(), head.end());
  }
  return rows;
}

std::vector<int> Positions(const PositionSelector& selector, int length) {
  std::vector<int> positions;
  for (int p = 0; p < length; ++p) {
    bool selected = selector.indices.empty() && selector.ranges.empty() && selector.named.empty();
    for (int index : selector.indices) selected |= (index < 0 ? index + length : index) == p;
    for (const PositionRange& range : selector.ranges) {
      const int start = range.start < 0 ? range.start + length : range.start;
      const int end = !range.end ? length : *range.end < 0 ? *range.end + length : *range.end;
      selected |= p >= start && p < end;
    }
    for (NamedPosition name : selector.named) selected |= name == NamedPosition::kLast && p == length - 1;
    if (selected) positions.push_back(p);
  }
  return positions;
}

}  // namespace

struct NaiveLlama::Pass {
  const NaiveLlama& model;
  const ModelConfig& config;
  const std::vector<TokenId>& tokens;
  int prompt_length;
  const InterventionSet& interventions;
  Activations seen;

  // Applies the interventions at a site to its activation and records it.
  void Hook(const HookSite& site, Activation& activation) {
    for (const Intervention& intervention : interventions) {
      if (intervention.site == site) Apply(intervention, activation);
    }
    seen[site] = activation;
  }
  void HookRows(const HookSite& site, Rows& rows, int heads) {
    Activation activation = Split(rows, heads);
    Hook(site, activation);
    rows = Join(activation);
  }

  void Apply(const Intervention& intervention, Activation& activation) {
    const Selector& selector = intervention.selector;
    const std::vector<int> positions = Positions(selector.positions, prompt_length);
    const bool indexed = !selector.positions.selects_all();
    bool generated = selector.scope == InterventionScope::kGenerated ||
                     selector.scope == InterventionScope::kPromptAndGenerated;
    const bool per_position = std::holds_alternative<Replacement>(intervention.edit) ||
                              std::holds_alternative<Resampling>(intervention.edit) ||
                              std::holds_alternative<PathPatch>(intervention.edit) ||
                              (std::holds_alternative<MeanReplacement>(intervention.edit) &&
                               std::get<MeanReplacement>(intervention.edit).axis == MeanAxis::kSources);
    if (selector.scope == InterventionScope::kDefault) generated = !indexed && !per_position;
    for (int row = 0; row < static_cast<int>(activation.size()); ++row) {
      const bool in_prompt = row < prompt_length;
      if (in_prompt && (selector.scope == InterventionScope::kGenerated ||
                        std::find(positions.begin(), positions.end(), row) == positions.end())) {
        continue;
      }
      if (!in_prompt && !generated) continue;
      for (int head = 0; head < static_cast<int>(activation[row].size()); ++head) {
        if (!selector.heads.empty() &&
            std::find(selector.heads.begin(), selector.heads.end(), head) == selector.heads.end()) {
          continue;
        }
        EditRow(intervention, row, head, activation[row][head]);
      }
    }
  }

  std::vector<int> Dims(const Intervention& intervention, size_t width) const {
    std::vector<int> dims = intervention.selector.dims;
    std::sort(dims.begin(), dims.end());
    if (dims.empty()) {
      for (size_t i = 0; i < width; ++i) dims.push_back(static_cast<int>(i));
    }
    return dims;
  }

  const std::vector<TokenId>& SourceTokens(const ActivationSource& source) const {
    return std::get<TokenizedPrompt>(source.origin).ids;
  }
  // A clean run's activation of another prompt.
  const Activation& SourceActivation(const ActivationSource& source, const HookSite& site) const {
    return model.CleanRun(SourceTokens(source)).at(site);
  }
  int SourceRow(const ActivationSource& source, int row) const {
    const bool from_end = source.alignment == PositionAlignment::kEnd;
    return from_end ? row + static_cast<int>(SourceTokens(source).size()) - prompt_length : row;
  }

  void EditRow(const Intervention& intervention, int row, int head, Row& values) {
    // Where a prompt's row is over keys, an edit's values are for the prompt's keys;
    // those of tokens after it are hidden from the row.
    const bool is_of_prompt_keys = IsOverKeys(intervention.site.point) && row < prompt_length;
    const size_t width = is_of_prompt_keys ? std::min<size_t>(values.size(), prompt_length) : values.size();
    const std::vector<int> dims = Dims(intervention, width);
    if (const auto* edit = std::get_if<Replacement>(&intervention.edit)) {
      const Activation& source = SourceActivation(edit->source, intervention.site);
      for (int d : dims) values[d] = source[SourceRow(edit->source, row)][head][d];
    } else if (std::holds_alternative<Zeroing>(intervention.edit)) {
      for (int d : dims) values[d] = 0;
    } else if (const auto* edit = std::get_if<MeanReplacement>(&intervention.edit)) {
      for (int d : dims) values[d] = Mean(*edit, intervention, row, head, d);
    } else if (const auto* edit = std::get_if<Addition>(&intervention.edit)) {
      for (size_t i = 0; i < dims.size(); ++i) values[dims[i]] += edit->scale * edit->vector.values[i];
    } else if (const auto* edit = std::get_if<PathPatch>(&intervention.edit)) {
      const int of = edit->sender_head.value_or(0);
      const Row after = SourceActivation(edit->source, edit->sender)[SourceRow(edit->source, row)][of];
      const Row before =
          model.CleanRun({tokens.begin(), tokens.begin() + prompt_length}).at(edit->sender)[row][of];
      for (int d : dims) values[d] += after[d] - before[d];
    } else if (const auto* edit = std::get_if<Scaling>(&intervention.edit)) {
      for (int d : dims) values[d] *= edit->factor;
    } else if (const auto* edit = std::get_if<ProjectionRemoval>(&intervention.edit)) {
      double dot = 0, squares = 0;
      for (size_t i = 0; i < dims.size(); ++i) {
        dot += values[dims[i]] * edit->direction.values[i];
        squares += double{edit->direction.values[i]} * edit->direction.values[i];
      }
      for (size_t i = 0; i < dims.size(); ++i) values[dims[i]] -= dot / squares * edit->direction.values[i];
    } else {
      std::abort();  // noise and resampling are random; they have tests of their own
    }
  }

  double Mean(const MeanReplacement& mean, const Intervention& intervention, int row, int head, int d) const {
    double sum = 0;
    int count = 0;
    for (const ActivationSource& source : mean.sources) {
      const Activation& activation = SourceActivation(source, intervention.site);
      const int length = static_cast<int>(activation.size());
      if (mean.axis == MeanAxis::kSources) {
        const int at = row - prompt_length + length;
        if (at < 0) continue;
        sum += activation[at][head][d];
        ++count;
        continue;
      }
      for (int p : Positions(intervention.selector.positions, length)) {
        sum += activation[p][head][d];
        ++count;
      }
    }
    return sum / count;
  }

  Rows Norm(const Rows& x, const std::string& gain_name, HookSite scale_site, HookSite normalized_site) {
    Rows scales, normalized;
    for (const Row& row : x) {
      double squares = 0;
      for (double v : row) squares += v * v;
      scales.push_back({std::sqrt(squares / static_cast<double>(row.size()) + config.rms_norm_epsilon)});
    }
    HookRows(scale_site, scales, 1);
    for (size_t t = 0; t < x.size(); ++t) {
      normalized.push_back(x[t]);
      for (double& v : normalized.back()) v /= scales[t][0];
    }
    HookRows(normalized_site, normalized, 1);
    const std::vector<float>& gain = model.Weight(gain_name);
    for (Row& row : normalized) {
      for (size_t i = 0; i < row.size(); ++i) row[i] *= gain[i];
    }
    return normalized;
  }

  // With the bias of that name, where the checkpoint has one.
  Rows Linear(const Rows& x, const std::string& name) const {
    Rows y;
    for (const Row& row : x) y.push_back(Multiply(row, model.Weight(name)));
    AddBias(name, y);
    return y;
  }

  void AddBias(const std::string& name, Rows& y) const {
    const std::string bias = absl::StrCat(name.substr(0, name.rfind('.')), ".bias");
    if (!model.weights_.contains(bias)) return;
    for (Row& row : y) {
      for (size_t i = 0; i < row.size(); ++i) row[i] += model.Weight(bias)[i];
    }
  }

  // RMSNorm of each head by itself, where the checkpoint has one of that name.
  void NormHeads(Activation& rows, const std::string& gain_name) const {
    if (!model.weights_.contains(gain_name)) return;
    for (Rows& heads : rows) {
      for (Row& head : heads) {
        double squares = 0;
        for (double v : head) squares += v * v;
        const double scale = std::sqrt(squares / static_cast<double>(head.size()) + config.rms_norm_epsilon);
        for (size_t i = 0; i < head.size(); ++i) head[i] *= model.Weight(gain_name)[i] / scale;
      }
    }
  }

  // Radians per position of a pair, as the configuration's scaling has it in a sequence of
  // this length.
  double Frequency(int pair, int length) const {
    const double size = config.head_size, turn = 2 * std::numbers::pi;
    const auto unscaled = [&](double theta) { return std::pow(theta, -2.0 * pair / size); };
    const double plain = unscaled(config.rope_theta);
    if (!config.rope_scaling) return plain;
    if (const auto* linear = std::get_if<LinearRope>(&*config.rope_scaling)) return plain / linear->factor;
    if (const auto* dynamic = std::get_if<DynamicRope>(&*config.rope_scaling)) {
      const double excess = std::max(0.0, static_cast<double>(length) / dynamic->original_context_length - 1);
      return unscaled(config.rope_theta * std::pow(1 + dynamic->factor * excess, size / (size - 2)));
    }
    // Of the two that divide slow pairs, how much a pair is divided: 0 to 1.
    double divided = 0, factor = 1;
    if (const auto* yarn = std::get_if<YarnRope>(&*config.rope_scaling)) {
      const auto pair_of = [&](double turns) {
        return size / 2 * std::log(yarn->original_context_length / (turns * turn)) /
               std::log(config.rope_theta);
      };
      const double first = std::max(0.0, pair_of(yarn->beta_fast)), last = pair_of(yarn->beta_slow);
      divided = std::clamp((pair - first) / (last - first), 0.0, 1.0);
      factor = yarn->factor;
    }
    if (const auto* llama3 = std::get_if<Llama3Rope>(&*config.rope_scaling)) {
      const double turns = llama3->original_context_length * plain / turn;
      divided = std::clamp(
          (llama3->high_freq_factor - turns) / (llama3->high_freq_factor - llama3->low_freq_factor), 0.0,
          1.0);
      factor = llama3->factor;
    }
    return plain * (1 - divided) + plain / factor * divided;
  }

  // YaRN makes queries and keys larger, too.
  double Magnitude() const {
    const auto* yarn = config.rope_scaling ? std::get_if<YarnRope>(&*config.rope_scaling) : nullptr;
    return yarn == nullptr ? 1 : yarn->attention_factor;
  }

  // A prompt by its whole length, each token after it by the length up to itself.
  void Rotate(Activation& heads) const {
    const int half = config.head_size / 2;
    for (int t = 0; t < static_cast<int>(heads.size()); ++t) {
      for (Row& head : heads[t]) {
        const Row before = head;
        for (int i = 0; i < half; ++i) {
          const double angle = t * Frequency(i, std::max(prompt_length, t + 1));
          const double cosine = Magnitude() * std::cos(angle), sine = Magnitude() * std::sin(angle);
          head[i] = before[i] * cosine - before[i + half] * sine;
          head[i + half] = before[i + half] * cosine + before[i] * sine;
        }
      }
    }
  }

  Rows Norm1(int layer, const Rows& x) {
    return Norm(x, absl::StrCat("model.layers.", layer, ".input_layernorm.weight"),
                {HookPoint::kLn1Scale, layer}, {HookPoint::kLn1Normalized, layer});
  }

  // Each head's own copy of the stream; what an edit changes of one is projected for that head
  // alone.
  void ReadStream(const HookSite& site, const Rows& stream, int heads, const std::string& name,
                  Rows& projected) {
    Activation input;
    for (const Row& row : stream) input.emplace_back(heads, row);
    Hook(site, input);
    const HookSite scale{HookPoint::kLn1Scale, site.layer}, normalized{HookPoint::kLn1Normalized, site.layer};
    const Activation seen_scale = seen.at(scale), seen_normalized = seen.at(normalized);
    for (int h = 0; h < heads; ++h) {
      Rows own;
      for (const Rows& row : input) own.push_back(row[h]);
      if (own == stream) continue;
      const Rows y = Linear(Norm1(site.layer, own), name);
      for (size_t t = 0; t < y.size(); ++t) {
        std::copy_n(y[t].begin() + h * config.head_size, config.head_size,
                    projected[t].begin() + h * config.head_size);
      }
    }
    seen[scale] = seen_scale;  // captures at the norm are of the stream
    seen[normalized] = seen_normalized;
  }

  Rows Attention(int layer, const Rows& stream) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".self_attn.");
    const Rows x = Norm1(layer, stream);
    Rows q = Linear(x, prefix + "q_proj.weight"), k = Linear(x, prefix + "k_proj.weight"),
         v = Linear(x, prefix + "v_proj.weight");
    ReadStream({HookPoint::kQInput, layer}, stream, config.head_count, prefix + "q_proj.weight", q);
    ReadStream({HookPoint::kKInput, layer}, stream, config.key_value_head_count, prefix + "k_proj.weight", k);
    ReadStream({HookPoint::kVInput, layer}, stream, config.key_value_head_count, prefix + "v_proj.weight", v);
    HookRows({HookPoint::kQ, layer}, q, config.head_count);
    HookRows({HookPoint::kK, layer}, k, config.key_value_head_count);
    HookRows({HookPoint::kV, layer}, v, config.key_value_head_count);
    Activation queries = Split(q, config.head_count), keys = Split(k, config.key_value_head_count),
               values = Split(v, config.key_value_head_count);
    NormHeads(queries, prefix + "q_norm.weight");
    NormHeads(keys, prefix + "k_norm.weight");
    Rotate(queries);
    Rotate(keys);
    Hook({HookPoint::kRotQ, layer}, queries);
    Hook({HookPoint::kRotK, layer}, keys);
    const int group = config.head_count / config.key_value_head_count;
    const size_t length = x.size();

    Activation scores(length, Rows(config.head_count, Row(length)));
    auto hide = [&](double hidden) {
      for (size_t t = 0; t < length; ++t) {
        for (Row& row : scores[t]) {
          std::fill(row.begin() + t + 1, row.end(), hidden);
          const size_t window = config.layers[layer].window;
          if (window > 0 && t + 1 > window) std::fill_n(row.begin(), t + 1 - window, hidden);
        }
      }
    };
    for (size_t t = 0; t < length; ++t) {
      for (int h = 0; h < config.head_count; ++h) {
        for (size_t s = 0; s < length; ++s) {
          double dot = 0;
          for (int i = 0; i < config.head_size; ++i) dot += queries[t][h][i] * keys[s][h / group][i];
          scores[t][h][s] = dot / std::sqrt(config.head_size);
        }
      }
    }
    hide(-std::numeric_limits<double>::infinity());
    Hook({HookPoint::kAttnScores, layer}, scores);
    hide(-std::numeric_limits<double>::infinity());
    seen[{HookPoint::kAttnScores, layer}] = scores;
    for (auto& heads : scores) {
      for (Row& row : heads) {
        const double largest = *std::max_element(row.begin(), row.end());
        double total = 0;
        for (double& s : row) total += s = std::exp(s - largest);
        for (double& s : row) s /= total;
      }
    }
    Hook({HookPoint::kPattern, layer}, scores);
    hide(0);
    seen[{HookPoint::kPattern, layer}] = scores;

    Activation z(length, Rows(config.head_count, Row(config.head_size, 0)));
    for (size_t t = 0; t < length; ++t) {
      for (int h = 0; h < config.head_count; ++h) {
        for (size_t s = 0; s < length; ++s) {
          for (int i = 0; i < config.head_size; ++i) z[t][h][i] += scores[t][h][s] * values[s][h / group][i];
        }
      }
    }
    Hook({HookPoint::kZ, layer}, z);

    const std::vector<float>& output = model.Weight(prefix + "o_proj.weight");
    Activation result(length, Rows(config.head_count, Row(config.d_model, 0)));
    for (size_t t = 0; t < length; ++t) {
      for (int h = 0; h < config.head_count; ++h) {
        for (int d = 0; d < config.d_model; ++d) {
          for (int i = 0; i < config.head_size; ++i) {
            result[t][h][d] += z[t][h][i] * output[d * config.query_width() + h * config.head_size + i];
          }
        }
      }
    }
    Hook({HookPoint::kResult, layer}, result);
    Rows out(length, Row(config.d_model, 0));
    for (size_t t = 0; t < length; ++t) {
      for (const Row& head : result[t]) {
        for (int d = 0; d < config.d_model; ++d) out[t][d] += head[d];
      }
    }
    AddBias(prefix + "o_proj.weight", out);
    HookRows({HookPoint::kAttnOut, layer}, out, 1);
    return out;
  }

  Rows Mlp(int layer, const Rows& x) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".mlp.");
    Rows gate = Linear(x, prefix + "gate_proj.weight"), up = Linear(x, prefix + "up_proj.weight");
    HookRows({HookPoint::kMlpPre, layer}, gate, 1);
    HookRows({HookPoint::kMlpPreLinear, layer}, up, 1);
    for (size_t t = 0; t < x.size(); ++t) {
      for (int i = 0; i < config.d_ff; ++i) gate[t][i] *= up[t][i] / (1 + std::exp(-gate[t][i]));
    }
    HookRows({HookPoint::kMlpPost, layer}, gate, 1);
    Rows out = Linear(gate, prefix + "down_proj.weight");
    HookRows({HookPoint::kMlpOut, layer}, out, 1);
    return out;
  }

  static void Add(Rows& x, const Rows& y) {
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < x[t].size(); ++i) x[t][i] += y[t][i];
    }
  }

  void Run() {
    const std::vector<float>& embedding = model.Weight("model.embed_tokens.weight");
    Rows x;
    for (TokenId id : tokens) {
      const auto* row = embedding.data() + int64_t{id} * config.d_model;
      x.emplace_back(row, row + config.d_model);
    }
    HookRows({HookPoint::kEmbed, 0}, x, 1);
    for (int layer = 0; layer < config.layer_count(); ++layer) {
      const std::string prefix = absl::StrCat("model.layers.", layer, ".");
      HookRows({HookPoint::kResidPre, layer}, x, 1);
      Add(x, Attention(layer, x));
      HookRows({HookPoint::kResidMid, layer}, x, 1);
      Rows mlp_in = x;
      HookRows({HookPoint::kMlpIn, layer}, mlp_in, 1);
      Add(x, Mlp(layer, Norm(mlp_in, prefix + "post_attention_layernorm.weight",
                             {HookPoint::kLn2Scale, layer}, {HookPoint::kLn2Normalized, layer})));
      HookRows({HookPoint::kResidPost, layer}, x, 1);
    }
    Rows logits = Linear(
        Norm(x, "model.norm.weight", {HookPoint::kLnFinalScale, 0}, {HookPoint::kLnFinalNormalized, 0}),
        config.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    HookRows({HookPoint::kLogits, 0}, logits, 1);
  }
};

NaiveLlama::NaiveLlama(const std::string& directory, const ModelConfig& config) : config_(config) {
  const auto file = SafetensorsFile::Open(directory + "/model.safetensors");
  if (!file.ok()) std::abort();
  for (const auto& [name, view] : (*file)->tensors()) weights_[name] = ToHostTensor(view)->values;
}

NaiveLlama::Activations NaiveLlama::Run(const std::vector<TokenId>& tokens, int prompt_length,
                                        const InterventionSet& interventions) const {
  Pass pass{*this, config_, tokens, prompt_length, interventions, {}};
  pass.Run();
  return std::move(pass.seen);
}

const NaiveLlama::Activations& NaiveLlama::CleanRun(const std::vector<TokenId>& tokens) const {
  auto found = clean_runs_.find(tokens);
  if (found == clean_runs_.end()) {
    found = clean_runs_.emplace(tokens, Run(tokens, static_cast<int>(tokens.size()))).first;
  }
  return found->second;
}

std::vector<double> NaiveLlama::LastLogits(const std::vector<TokenId>& tokens,
                                           const InterventionSet& interventions) const {
  return Run(tokens, static_cast<int>(tokens.size()), interventions)
      .at({HookPoint::kLogits, 0})
      .back()
      .front();
}

}  // namespace mechinterp::engine
