#include "services/engine/interventions/hook_point.h"

#include <iterator>

#include "absl/strings/str_cat.h"

namespace mechinterp::engine {
namespace {

// What a point's rows are; T positions.
enum class PointShape {
  kScale,                   // [T, 1]
  kModel,                   // [T, D]
  kQueryHeads,              // [T, H, Dh]
  kKeyValueHeads,           // [T, KV, Dh]
  kHeadsOverKeys,           // [H, T, T]
  kHeadsOverModel,          // [T, H, D]
  kKeyValueHeadsOverModel,  // [T, KV, D]
  kNeurons,                 // [T, F]
  kVocabulary,              // [T, V]
};

struct PointRow {
  HookPoint point;
  int wire_number;
  absl::string_view name;  // TransformerLens's; within its block, where it is in one
  PassPart part;
  PointShape shape;
};

// In the order of the pass, that of the enum.
constexpr PointRow kPoints[] = {
    {HookPoint::kEmbed, 1, "hook_embed", PassPart::kEmbedding, PointShape::kModel},
    {HookPoint::kResidPre, 2, "hook_resid_pre", PassPart::kBlock, PointShape::kModel},
    {HookPoint::kQInput, 26, "hook_q_input", PassPart::kBlock, PointShape::kHeadsOverModel},
    {HookPoint::kKInput, 27, "hook_k_input", PassPart::kBlock, PointShape::kKeyValueHeadsOverModel},
    {HookPoint::kVInput, 28, "hook_v_input", PassPart::kBlock, PointShape::kKeyValueHeadsOverModel},
    {HookPoint::kLn1Scale, 3, "ln1.hook_scale", PassPart::kBlock, PointShape::kScale},
    {HookPoint::kLn1Normalized, 4, "ln1.hook_normalized", PassPart::kBlock, PointShape::kModel},
    {HookPoint::kQ, 5, "attn.hook_q", PassPart::kBlock, PointShape::kQueryHeads},
    {HookPoint::kK, 6, "attn.hook_k", PassPart::kBlock, PointShape::kKeyValueHeads},
    {HookPoint::kV, 7, "attn.hook_v", PassPart::kBlock, PointShape::kKeyValueHeads},
    {HookPoint::kRotQ, 8, "attn.hook_rot_q", PassPart::kBlock, PointShape::kQueryHeads},
    {HookPoint::kRotK, 9, "attn.hook_rot_k", PassPart::kBlock, PointShape::kKeyValueHeads},
    {HookPoint::kAttnScores, 10, "attn.hook_attn_scores", PassPart::kBlock, PointShape::kHeadsOverKeys},
    {HookPoint::kPattern, 11, "attn.hook_pattern", PassPart::kBlock, PointShape::kHeadsOverKeys},
    {HookPoint::kZ, 12, "attn.hook_z", PassPart::kBlock, PointShape::kQueryHeads},
    {HookPoint::kResult, 13, "attn.hook_result", PassPart::kBlock, PointShape::kHeadsOverModel},
    {HookPoint::kAttnOut, 14, "hook_attn_out", PassPart::kBlock, PointShape::kModel},
    {HookPoint::kResidMid, 15, "hook_resid_mid", PassPart::kBlock, PointShape::kModel},
    {HookPoint::kMlpIn, 29, "hook_mlp_in", PassPart::kBlock, PointShape::kModel},
    {HookPoint::kLn2Scale, 16, "ln2.hook_scale", PassPart::kBlock, PointShape::kScale},
    {HookPoint::kLn2Normalized, 17, "ln2.hook_normalized", PassPart::kBlock, PointShape::kModel},
    {HookPoint::kMlpPre, 18, "mlp.hook_pre", PassPart::kBlock, PointShape::kNeurons},
    {HookPoint::kMlpPreLinear, 19, "mlp.hook_pre_linear", PassPart::kBlock, PointShape::kNeurons},
    {HookPoint::kMlpPost, 20, "mlp.hook_post", PassPart::kBlock, PointShape::kNeurons},
    {HookPoint::kMlpOut, 21, "hook_mlp_out", PassPart::kBlock, PointShape::kModel},
    {HookPoint::kResidPost, 22, "hook_resid_post", PassPart::kBlock, PointShape::kModel},
    {HookPoint::kLnFinalScale, 23, "ln_final.hook_scale", PassPart::kHead, PointShape::kScale},
    {HookPoint::kLnFinalNormalized, 24, "ln_final.hook_normalized", PassPart::kHead, PointShape::kModel},
    {HookPoint::kLogits, 25, "logits", PassPart::kHead, PointShape::kVocabulary},
};
constexpr int kPointCount = static_cast<int>(std::size(kPoints));

// Whether the rows are the enum's, in its order, and no wire number stands twice.
constexpr bool IsWellFormed() {
  for (int i = 0; i < kPointCount; ++i) {
    if (kPoints[i].point != static_cast<HookPoint>(i) || kPoints[i].wire_number < 1) return false;
    for (int j = 0; j < i; ++j) {
      if (kPoints[i].wire_number == kPoints[j].wire_number) return false;
    }
  }
  return kPoints[kPointCount - 1].point == HookPoint::kLogits;
}
static_assert(IsWellFormed());

const PointRow& RowOf(HookPoint point) { return kPoints[static_cast<int>(point)]; }

bool GlobMatches(absl::string_view glob, absl::string_view text) {
  size_t g = 0, t = 0, star = absl::string_view::npos, star_text = 0;
  while (t < text.size()) {
    if (g < glob.size() && (glob[g] == '?' || (glob[g] == text[t] && glob[g] != '*'))) {
      ++g, ++t;
    } else if (g < glob.size() && glob[g] == '*') {
      star = g++;
      star_text = t;
    } else if (star != absl::string_view::npos) {
      g = star + 1;  // let the last star take one character more
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

}  // namespace

std::vector<HookPoint> AllHookPoints() {
  std::vector<HookPoint> points;
  for (const PointRow& row : kPoints) points.push_back(row.point);
  return points;
}

int WireNumber(HookPoint point) { return RowOf(point).wire_number; }

std::optional<HookPoint> PointOfWireNumber(int number) {
  for (const PointRow& row : kPoints) {
    if (row.wire_number == number) return row.point;
  }
  return std::nullopt;
}

PassPart PartOf(HookPoint point) { return RowOf(point).part; }

bool HasLayer(HookPoint point) { return PartOf(point) == PassPart::kBlock; }

bool IsOverKeys(HookPoint point) { return RowOf(point).shape == PointShape::kHeadsOverKeys; }

SiteShape ShapeOf(HookPoint point, const ModelConfig& config) {
  switch (RowOf(point).shape) {
    case PointShape::kScale:
      return {1, 1, false};
    case PointShape::kModel:
      break;
    case PointShape::kQueryHeads:
      return {config.head_count, config.head_size, true};
    case PointShape::kKeyValueHeads:
      return {config.key_value_head_count, config.head_size, true};
    case PointShape::kHeadsOverKeys:
      return {config.head_count, kWidthIsKeys, true};
    case PointShape::kHeadsOverModel:
      return {config.head_count, config.d_model, true};
    case PointShape::kKeyValueHeadsOverModel:
      return {config.key_value_head_count, config.d_model, true};
    case PointShape::kNeurons:
      return {1, config.d_ff, false};
    case PointShape::kVocabulary:
      return {1, config.vocabulary_size, false};
  }
  return {1, config.d_model, false};
}

std::string SiteName(const HookSite& site) {
  const absl::string_view name = RowOf(site.point).name;
  return HasLayer(site.point) ? absl::StrCat("blocks.", site.layer, ".", name) : std::string(name);
}

std::vector<HookSite> AllSites(const ModelConfig& config) {
  std::vector<HookSite> sites;
  auto add = [&](PassPart part, int layer) {
    for (const PointRow& row : kPoints) {
      if (row.part == part) sites.push_back({row.point, layer});
    }
  };
  add(PassPart::kEmbedding, 0);
  for (int layer = 0; layer < config.layer_count(); ++layer) add(PassPart::kBlock, layer);
  add(PassPart::kHead, 0);
  return sites;
}

std::vector<HookSite> MatchingSites(absl::string_view glob, const ModelConfig& config) {
  std::vector<HookSite> matching;
  for (const HookSite& site : AllSites(config)) {
    if (GlobMatches(glob, SiteName(site))) matching.push_back(site);
  }
  return matching;
}

std::vector<int64_t> PublicShape(HookPoint point, const ModelConfig& config, int64_t positions,
                                 int64_t prompt_length) {
  const SiteShape shape = ShapeOf(point, config);
  if (IsOverKeys(point)) return {shape.heads, positions, prompt_length};
  if (shape.has_head_axis) return {positions, shape.heads, shape.width};
  return {positions, shape.width};
}

}  // namespace mechinterp::engine
