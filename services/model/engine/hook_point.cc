#include "services/model/engine/hook_point.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace mechinterp::engine {
namespace {

struct PointInfo {
  absl::string_view name;  // within its block, where it has a layer
  bool has_layer;
};

constexpr PointInfo kPoints[kHookPointCount] = {
    {"hook_embed", false},
    {"hook_resid_pre", true},
    {"ln1.hook_scale", true},
    {"ln1.hook_normalized", true},
    {"attn.hook_q", true},
    {"attn.hook_k", true},
    {"attn.hook_v", true},
    {"attn.hook_rot_q", true},
    {"attn.hook_rot_k", true},
    {"attn.hook_attn_scores", true},
    {"attn.hook_pattern", true},
    {"attn.hook_z", true},
    {"attn.hook_result", true},
    {"hook_attn_out", true},
    {"hook_resid_mid", true},
    {"ln2.hook_scale", true},
    {"ln2.hook_normalized", true},
    {"mlp.hook_pre", true},
    {"mlp.hook_pre_linear", true},
    {"mlp.hook_post", true},
    {"hook_mlp_out", true},
    {"hook_resid_post", true},
    {"ln_final.hook_scale", false},
    {"ln_final.hook_normalized", false},
    {"logits", false},
};

const PointInfo& InfoOf(HookPoint point) { return kPoints[static_cast<int>(point)]; }

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

bool HasLayer(HookPoint point) { return InfoOf(point).has_layer; }

bool IsOverKeys(HookPoint point) { return point == HookPoint::kAttnScores || point == HookPoint::kPattern; }

SiteShape ShapeOf(HookPoint point, const ModelConfig& config) {
  switch (point) {
    case HookPoint::kLn1Scale:
    case HookPoint::kLn2Scale:
    case HookPoint::kLnFinalScale:
      return {1, 1, false};
    case HookPoint::kQ:
    case HookPoint::kRotQ:
    case HookPoint::kZ:
      return {config.head_count, config.head_size, true};
    case HookPoint::kK:
    case HookPoint::kRotK:
    case HookPoint::kV:
      return {config.key_value_head_count, config.head_size, true};
    case HookPoint::kAttnScores:
    case HookPoint::kPattern:
      return {config.head_count, kWidthIsKeys, true};
    case HookPoint::kResult:
      return {config.head_count, config.d_model, true};
    case HookPoint::kMlpPre:
    case HookPoint::kMlpPreLinear:
    case HookPoint::kMlpPost:
      return {1, config.d_ff, false};
    case HookPoint::kLogits:
      return {1, config.vocabulary_size, false};
    default:
      return {1, config.d_model, false};
  }
}

std::string SiteName(const HookSite& site) {
  const PointInfo& info = InfoOf(site.point);
  return info.has_layer ? absl::StrCat("blocks.", site.layer, ".", info.name) : std::string(info.name);
}

std::optional<HookSite> ParseSiteName(absl::string_view name, const ModelConfig& config) {
  int layer = 0;
  const bool has_layer = absl::ConsumePrefix(&name, "blocks.");
  if (has_layer) {
    const size_t dot = name.find('.');
    if (dot == absl::string_view::npos || !absl::SimpleAtoi(name.substr(0, dot), &layer) || layer < 0 ||
        layer >= config.layer_count) {
      return std::nullopt;
    }
    name.remove_prefix(dot + 1);
  }
  for (int p = 0; p < kHookPointCount; ++p) {
    if (kPoints[p].name == name && kPoints[p].has_layer == has_layer) {
      return HookSite{static_cast<HookPoint>(p), layer};
    }
  }
  return std::nullopt;
}

std::vector<HookSite> AllSites(const ModelConfig& config) {
  std::vector<HookSite> sites = {{HookPoint::kEmbed, 0}};
  for (int layer = 0; layer < config.layer_count; ++layer) {
    for (int p = 0; p < kHookPointCount; ++p) {
      if (kPoints[p].has_layer) sites.push_back({static_cast<HookPoint>(p), layer});
    }
  }
  for (HookPoint point : {HookPoint::kLnFinalScale, HookPoint::kLnFinalNormalized, HookPoint::kLogits}) {
    sites.push_back({point, 0});
  }
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
