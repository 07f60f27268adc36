#ifndef CLIENTS_LIB_MONITOR_H_
#define CLIENTS_LIB_MONITOR_H_

#include <string_view>
#include <vector>

#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// Is told how an experiment goes on; this one ignores it. Implementations are
// thread-safe: experiments call from several threads.
class ExperimentMonitor {
 public:
  virtual ~ExperimentMonitor() = default;

  // A stage of `total` steps begins, `done` of which a former run has done.
  virtual void Begin(std::string_view stage, int total, int done) {}
  // A step of the stage is finished; it took `runs` runs of the model.
  virtual void Advance(int runs) {}
  // So much more of a step in progress is done, in (0, 1]. Not every step tells.
  virtual void AdvancePart(double share) {}
  // The stage is over, completely or not.
  virtual void End() {}
  // A refusal rate came out, in [0, 1]. `condition`: "baseline", "mean top 10".
  virtual void SetRefusalRate(std::string_view condition, v1::PromptClass prompt_class, double rate) {}
  // Something that a person should know, in one line: a server that is waited for.
  virtual void Remark(std::string_view text) {}
  // A component's mean effect came out.
  virtual void SetEffect(std::string_view component, v1::PatchDirection direction, double effect) {}
};

// Tells several others, which must outlive it.
class MonitorGroup : public ExperimentMonitor {
 public:
  explicit MonitorGroup(std::vector<ExperimentMonitor*> members) : members_(std::move(members)) {}

  void Begin(std::string_view stage, int total, int done) override {
    for (ExperimentMonitor* member : members_) member->Begin(stage, total, done);
  }
  void Advance(int runs) override {
    for (ExperimentMonitor* member : members_) member->Advance(runs);
  }
  void AdvancePart(double share) override {
    for (ExperimentMonitor* member : members_) member->AdvancePart(share);
  }
  void End() override {
    for (ExperimentMonitor* member : members_) member->End();
  }
  void Remark(std::string_view text) override {
    for (ExperimentMonitor* member : members_) member->Remark(text);
  }
  void SetRefusalRate(std::string_view condition, v1::PromptClass prompt_class, double rate) override {
    for (ExperimentMonitor* member : members_) member->SetRefusalRate(condition, prompt_class, rate);
  }
  void SetEffect(std::string_view component, v1::PatchDirection direction, double effect) override {
    for (ExperimentMonitor* member : members_) member->SetEffect(component, direction, effect);
  }

 private:
  const std::vector<ExperimentMonitor*> members_;
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_MONITOR_H_
