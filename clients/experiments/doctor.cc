#include "clients/experiments/doctor.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

using google::protobuf::util::TimeUtil;

// The first warms up; the best counts.
constexpr int kRepetitions = 3;
constexpr uint32_t kPrefillTokens = 128;
constexpr uint32_t kShortPromptTokens = 16;
constexpr uint32_t kDecodedTokens = 32;
constexpr uint32_t kMostSweepLayers = 8;
// The check, two generations for decoding, prefill and sweep.
constexpr int kSteps = 1 + 4 * kRepetitions;

// Measures one server. Not thread-safe.
class Examiner {
 public:
  Examiner(ModelClient& client, ExperimentMonitor* monitor, v1::GetModelResponse model)
      : client_(client), monitor_(monitor) {
    *report_.mutable_create_time() = TimeUtil::GetCurrentTime();
    *report_.mutable_model() = std::move(model);
  }

  v1::DoctorReport Examine() {
    if (monitor_ != nullptr) monitor_->Begin("doctor", kSteps, 0);
    CheckDevice();
    Measure(v1::SPEED_KIND_DECODE, "decode", [this] { return MeasureDecode(); });
    Measure(v1::SPEED_KIND_PREFILL, "prefill", [this] { return MeasurePrefill(); });
    Measure(v1::SPEED_KIND_SWEEP, "sweep", [this] { return MeasureSweep(); });
    if (monitor_ != nullptr) monitor_->End();
    return std::move(report_);
  }

 private:
  const v1::GetModelResponse& model() const { return report_.model(); }

  void Advance() {
    if (monitor_ != nullptr) monitor_->Advance(1);
  }

  void CheckDevice() {
    const absl::StatusOr<v1::CheckDeviceResponse> check = client_.CheckDevice();
    Advance();
    if (absl::IsUnimplemented(check.status())) {
      report_.add_remarks("the server is too old to check its device (no CheckDevice)");
    } else if (!check.ok()) {
      report_.add_problems(absl::StrCat("device check: ", check.status().ToString()));
    } else {
      *report_.mutable_device_check() = *check;
      if (!check->passed()) report_.add_problems(absl::StrCat("device check: ", check->problem()));
    }
  }

  void Measure(v1::SpeedKind kind, const char* name,
               const std::function<absl::StatusOr<v1::SpeedMeasurement>()>& measure) {
    absl::StatusOr<v1::SpeedMeasurement> speed = measure();
    if (!speed.ok()) {
      report_.add_problems(absl::StrCat(name, ": ", speed.status().ToString()));
      return;
    }
    speed->set_kind(kind);
    *report_.add_speeds() = *std::move(speed);
  }

  // Half of the context at most, so that something can be generated after it.
  uint32_t Fitting(uint32_t token_count) const {
    if (model().context_length() == 0) return token_count;
    return std::clamp(model().context_length() / 2, 1u, token_count);
  }

  // Another one each time: nothing can have been kept from the last.
  v1::Prompt NextPrompt(uint32_t token_count) {
    v1::Prompt prompt;
    const uint32_t vocabulary = std::max(model().vocabulary_size(), 1u);
    for (uint32_t i = 0; i < token_count; ++i) {
      prompt.mutable_token_ids()->add_ids((next_token_ + 7 * i) % vocabulary);
    }
    next_token_ += 13;
    return prompt;
  }

  // The shortest time that `run` tells of.
  absl::StatusOr<absl::Duration> Best(const std::function<absl::StatusOr<v1::RunTimings>()>& run) {
    absl::Duration best = absl::InfiniteDuration();
    for (int i = 0; i < kRepetitions; ++i) {
      ABSTRACT_ASSIGN_OR_RETURN(const v1::RunTimings timings, run());
      Advance();
      best = std::min(best, absl::Nanoseconds(TimeUtil::DurationToNanoseconds(timings.run_duration())));
    }
    return best;
  }

  absl::StatusOr<absl::Duration> BestGeneration(uint32_t prompt_tokens, uint32_t new_tokens) {
    return Best([&]() -> absl::StatusOr<v1::RunTimings> {
      v1::GenerateRequest request;
      *request.mutable_prompt() = NextPrompt(prompt_tokens);
      request.mutable_sampling()->set_max_new_tokens(new_tokens);
      request.mutable_sampling()->set_ignore_stop_tokens(true);
      ABSTRACT_ASSIGN_OR_RETURN(const Generation generation, client_.Generate(request));
      return generation.summary.timings();
    });
  }

  static absl::StatusOr<v1::SpeedMeasurement> SpeedOf(uint32_t count, absl::Duration duration,
                                                      uint32_t prompt_tokens) {
    if (duration <= absl::ZeroDuration()) return absl::InternalError("it took no time by the server's clock");
    v1::SpeedMeasurement speed;
    speed.set_count(count);
    *speed.mutable_duration() = TimeUtil::NanosecondsToDuration(absl::ToInt64Nanoseconds(duration));
    speed.set_count_per_second(count / absl::ToDoubleSeconds(duration));
    speed.set_prompt_token_count(prompt_tokens);
    return speed;
  }

  // What the tokens after the first one add.
  absl::StatusOr<v1::SpeedMeasurement> MeasureDecode() {
    const uint32_t prompt_tokens = Fitting(kShortPromptTokens);
    const uint32_t new_tokens = Fitting(kDecodedTokens);
    ABSTRACT_ASSIGN_OR_RETURN(const absl::Duration first, BestGeneration(prompt_tokens, 1));
    ABSTRACT_ASSIGN_OR_RETURN(const absl::Duration all, BestGeneration(prompt_tokens, 1 + new_tokens));
    return SpeedOf(new_tokens, all - first, prompt_tokens);
  }

  absl::StatusOr<v1::SpeedMeasurement> MeasurePrefill() {
    const uint32_t prompt_tokens = Fitting(kPrefillTokens);
    ABSTRACT_ASSIGN_OR_RETURN(const absl::Duration duration, BestGeneration(prompt_tokens, 1));
    return SpeedOf(prompt_tokens, duration, prompt_tokens);
  }

  // Every head of layers spread over the model.
  absl::StatusOr<v1::SpeedMeasurement> MeasureSweep() {
    const uint32_t prompt_tokens = Fitting(kShortPromptTokens);
    const uint32_t layer_count = std::min(model().layer_count(), kMostSweepLayers);
    v1::RunPatchSweepRequest request;
    v1::SweepGrid& grid = *request.mutable_grid();
    grid.mutable_prototype()->mutable_zeroing();
    grid.mutable_prototype()->mutable_selector()->mutable_positions()->add_indices(-1);
    grid.add_points(v1::HOOK_POINT_Z);
    for (uint32_t i = 0; i < layer_count; ++i) grid.add_layers(i * model().layer_count() / layer_count);
    grid.add_axes(v1::SWEEP_AXIS_HEAD);
    uint32_t run_count = 0;
    ABSTRACT_ASSIGN_OR_RETURN(const absl::Duration duration, Best([&]() -> absl::StatusOr<v1::RunTimings> {
                                *request.mutable_prompt() = NextPrompt(prompt_tokens);
                                ABSTRACT_ASSIGN_OR_RETURN(const Sweep sweep, client_.RunPatchSweep(request));
                                run_count = sweep.summary.run_count();
                                return sweep.summary.timings();
                              }));
    return SpeedOf(run_count, duration, prompt_tokens);
  }

  ModelClient& client_;
  ExperimentMonitor* const monitor_;
  v1::DoctorReport report_;
  uint32_t next_token_ = 1;
};

}  // namespace

absl::StatusOr<v1::DoctorReport> ExamineServer(ModelClient& client, ExperimentMonitor* monitor) {
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetModelResponse model, client.GetModel());
  return Examiner(client, monitor, std::move(model)).Examine();
}

}  // namespace mechinterp
