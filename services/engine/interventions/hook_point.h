#ifndef SERVICES_ENGINE_INTERVENTIONS_HOOK_POINT_H_
#define SERVICES_ENGINE_INTERVENTIONS_HOOK_POINT_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// Places in the forward pass where activations can be read and edited, in the order in
// which it reaches them: later ones compare greater. What else there is to know of a point
// (its name, its number on the wire, its shape) is a row of the table in hook_point.cc. A
// new point may be put anywhere here: neither clients nor published noise go by the order.
enum class HookPoint {
  kEmbed,
  kResidPre,
  kQInput,
  kKInput,
  kVInput,
  kLn1Scale,
  kLn1Normalized,
  kQ,
  kK,
  kV,
  kRotQ,
  kRotK,
  kAttnScores,
  kPattern,
  kZ,
  kResult,
  kAttnOut,
  kResidMid,
  kMlpIn,
  kLn2Scale,
  kLn2Normalized,
  kMlpPre,
  kMlpPreLinear,
  kMlpPost,
  kMlpOut,
  kResidPost,
  kLnFinalScale,
  kLnFinalNormalized,
  kLogits,
};

// Which part of the pass a point belongs to.
enum class PassPart { kEmbedding, kBlock, kHead };

// Every point, in the order of the pass.
std::vector<HookPoint> AllHookPoints();

// The number by which the API and published noise know a point (HookPoint in hook.proto):
// at least 1, never given to another point.
int WireNumber(HookPoint point);
std::optional<HookPoint> PointOfWireNumber(int number);

PassPart PartOf(HookPoint point);
// Whether there is one in every block.
bool HasLayer(HookPoint point);

// One hook point of one layer; layer 0 at points without a layer. Ordered as
// the forward pass reaches them within a layer.
struct HookSite {
  HookPoint point = HookPoint::kResidPre;
  int layer = 0;
  friend auto operator<=>(const HookSite&, const HookSite&) = default;
};

// Inside the engine every activation is [positions, heads, width]: heads is 1
// where there is no head axis; attention scores and patterns have a row per
// query, and the keys as width.
struct SiteShape {
  int heads = 1;
  int width = 1;               // kWidthIsKeys for scores and patterns
  bool has_head_axis = false;  // in the public shape

  int64_t size() const { return int64_t{heads} * width; }  // of a position; not where width is keys
};
inline constexpr int kWidthIsKeys = -1;

// Scores and patterns, whose last axis is keys.
bool IsOverKeys(HookPoint point);
SiteShape ShapeOf(HookPoint point, const ModelConfig& config);

// "blocks.2.attn.hook_z"; "logits".
std::string SiteName(const HookSite& site);
// Every site of the model, in the order of the forward pass.
std::vector<HookSite> AllSites(const ModelConfig& config);
// Those whose name matches a glob (`*`: any characters, `?`: one).
std::vector<HookSite> MatchingSites(absl::string_view glob, const ModelConfig& config);

// Shape that clients see for an activation over `positions` of a prompt of
// `prompt_length` tokens: [P, D], [P, H, Dh], or [H, P, T] for scores and
// patterns. -1 may stand for both counts.
std::vector<int64_t> PublicShape(HookPoint point, const ModelConfig& config, int64_t positions,
                                 int64_t prompt_length);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_HOOK_POINT_H_
