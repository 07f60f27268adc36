#include "services/engine/operations/self_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/hash.h"
#include "services/common/status_macros.h"
#include "services/engine/base/random.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/forward/run_pass.h"
#include "services/engine/metal/kernel_library.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {
namespace {

// Longer than what the kernels for few rows take, so that the way of long prompts is
// checked; one token more is decoded, by the way of single rows.
constexpr int kPromptLength = metal::kMaxLinearRows + 8;

// Measured rounding differences between summation orders, with margin.
double Tolerance(NumberFormat compute) {
  switch (compute) {
    case NumberFormat::kFloat32:
      return 1e-3;
    case NumberFormat::kFloat16:
      return 1e-2;
    default:  // bf16
      return 5e-2;
  }
}

// The prompt, and the token to decode after it.
std::vector<TokenId> FixedTokens(const ModelConfig& config) {
  std::vector<TokenId> ids(std::min<int>(kPromptLength + 1, config.context_length));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<TokenId>(RandomBits(/*seed=*/1, /*key=*/0, i) % config.vocabulary_size);
  }
  return ids;
}

// |a - b| / |b|, Euclidean norms.
double RelativeError(absl::Span<const float> a, absl::Span<const float> b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  const double error = std::sqrt(difference) / std::max(std::sqrt(size), 1e-30);
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

// The larger of that of the prompt's rows and that of the decoded one.
double LargerError(const std::vector<float>& a, const std::vector<float>& b, int64_t width) {
  const size_t prompt = b.size() - width;
  const absl::Span<const float> x(a), y(b);
  return std::max(RelativeError(x.first(prompt), y.first(prompt)),
                  RelativeError(x.subspan(prompt), y.subspan(prompt)));
}

std::vector<float> Difference(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return difference;
}

std::vector<int> CheckedLayers(const ModelConfig& config) {
  const std::set<int> layers = {0, config.layer_count() / 2, config.layer_count() - 1};
  return {layers.begin(), layers.end()};
}

class Check {
 public:
  explicit Check(RunContext& context)
      : context_(context), model_(context.executor.model()), config_(model_.config()) {}

  absl::StatusOr<SelfCheck> Run() {
    const absl::Time start = absl::Now();
    result_.tolerance = Tolerance(model_.formats().compute_type);
    ABSTRACT_RETURN_IF_ERROR(RunDevice());
    for (int layer : CheckedLayers(config_)) ABSTRACT_RETURN_IF_ERROR(CheckLayer(layer));
    ABSTRACT_RETURN_IF_ERROR(CheckHead());
    Judge();
    result_.duration = absl::Now() - start;
    return std::move(result_);
  }

 private:
  // The prompt and a decoding step after it, which record into the same segment.
  absl::Status RunDevice() {
    const std::vector<TokenId> tokens = FixedTokens(config_);
    rows_ = static_cast<int>(tokens.size());
    auto plan = std::make_shared<HookPlan>();
    plan->prompt_length = rows_;
    positions_.resize(rows_);
    std::iota(positions_.begin(), positions_.end(), 0);
    for (int layer : CheckedLayers(config_)) {
      for (HookPoint point : {HookPoint::kResidPre, HookPoint::kResidPost}) {
        plan->captures[{point, layer}] = {{point, layer}, positions_};
      }
    }
    device_.plan = std::move(plan);
    device_.cache = std::make_shared<KvCache>(config_);
    device_.logits_rows = LogitsRows::kAll;
    device_.tokens.assign(tokens.begin(), tokens.end() - 1);
    Segment* const segments[] = {&device_};
    ABSTRACT_RETURN_IF_ERROR(Run(segments));
    logits_ = std::move(device_.logits.values);
    device_.tokens.assign(1, tokens.back());
    device_.first_position = rows_ - 1;
    ABSTRACT_RETURN_IF_ERROR(Run(segments));
    logits_.insert(logits_.end(), device_.logits.values.begin(), device_.logits.values.end());
    return absl::OkStatus();
  }

  // Not by the context, which takes values that are not finite for the request's fault.
  absl::Status Run(absl::Span<Segment* const> segments) {
    return context_.executor.Run(segments, &context_.waited);
  }

  const std::vector<float>& Recorded(HookPoint point, int layer) const {
    return device_.activations.at({point, layer}).values.values;
  }

  // A segment that starts from what the device had at a point.
  Segment From(HookPoint point, int layer) const {
    Segment segment;
    segment.residual = {{rows_, config_.d_model}, Recorded(point, layer)};
    return segment;
  }

  absl::Status CheckLayer(int layer) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> reference,
                              Model::LoadPart(model_, {{layer}, /*with_head=*/false}));
    Segment segment = From(HookPoint::kResidPre, layer);
    auto plan = std::make_shared<HookPlan>();
    plan->prompt_length = rows_;
    const HookSite out{HookPoint::kResidPost, 0};
    plan->captures[out] = {out, positions_};
    segment.plan = std::move(plan);
    Segment* const segments[] = {&segment};
    ABSTRACT_RETURN_IF_ERROR(RunPass(*reference, segments));
    const std::vector<float>& before = Recorded(HookPoint::kResidPre, layer);
    result_.layers.push_back(
        {layer, LargerError(Difference(Recorded(HookPoint::kResidPost, layer), before),
                            Difference(segment.activations.at(out).values.values, before), config_.d_model)});
    return absl::OkStatus();
  }

  absl::Status CheckHead() {
    ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> reference,
                              Model::LoadPart(model_, {{}, /*with_head=*/true}));
    Segment segment = From(HookPoint::kResidPost, config_.layer_count() - 1);
    segment.logits_rows = LogitsRows::kAll;
    Segment* const segments[] = {&segment};
    ABSTRACT_RETURN_IF_ERROR(RunPass(*reference, segments));
    result_.head_relative_error = LargerError(logits_, segment.logits.values, config_.vocabulary_size);
    return absl::OkStatus();
  }

  void Judge() {
    std::string what = absl::StrCat(DeviceKindName(model_.device().kind), model_.content_hash());
    auto judge = [&](const std::string& where, double error) {
      absl::StrAppend(&what, ",", error);
      if (error > result_.tolerance && result_.problem.empty()) {
        result_.problem = absl::StrFormat("%s: relative error %.2g", where, error);
      }
    };
    for (const LayerError& layer : result_.layers) {
      judge(absl::StrCat("layer ", layer.layer), layer.relative_error);
    }
    judge("output head", result_.head_relative_error);
    result_.passed = result_.problem.empty();
    result_.id = absl::StrFormat("%016x", Fnv1a(what));
  }

  RunContext& context_;
  const Model& model_;
  const ModelConfig& config_;
  Segment device_;
  int rows_ = 0;  // of the prompt and the step
  std::vector<int> positions_;
  std::vector<float> logits_;  // [rows, V]
  SelfCheck result_;
};

}  // namespace

absl::StatusOr<SelfCheck> CheckDevice(RunContext& context) { return Check(context).Run(); }

int64_t SelfCheckBytes(const Model& model) {
  const int64_t head = model.weights().unembedding.bytes();
  return std::max(head, (model.total_weight_bytes() - head) / model.config().layer_count());
}

}  // namespace mechinterp::engine
