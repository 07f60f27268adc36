#ifndef SERVICES_ENGINE_FORWARD_EXECUTOR_H_
#define SERVICES_ENGINE_FORWARD_EXECUTOR_H_

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/engine/forward/run_pass.h"

namespace mechinterp::engine {

// Runs segments. The engine's operations (generation, sweeps ...) are written
// against this, each in its caller's thread; the model service's scheduler puts
// what many callers ask for at the same time into one forward pass.
class Executor {
 public:
  virtual ~Executor() = default;
  // Blocks until all segments ran, in as many forward passes as the executor
  // finds right. `waited`, if not null, is increased by the time that none of
  // them was in a pass.
  virtual absl::Status Run(absl::Span<Segment* const> segments, absl::Duration* waited) = 0;
  virtual const Model& model() const = 0;
  // Rows worth having ready at once; operations that make many segments make
  // them in batches of about so many.
  virtual int preferred_batch_rows() const = 0;
};

// Runs segments at once, in the caller's thread. For tools and tests.
class DirectExecutor : public Executor {
 public:
  explicit DirectExecutor(std::shared_ptr<const Model> model) : model_(std::move(model)) {}
  // Splits what is more than preferred_batch_rows into several passes.
  absl::Status Run(absl::Span<Segment* const> segments, absl::Duration* waited) override;
  const Model& model() const override { return *model_; }
  int preferred_batch_rows() const override { return 256; }

 private:
  std::shared_ptr<const Model> model_;
};

// What an operation carries along: where to run, and whether still to.
struct RunContext {
  Executor& executor;
  // Asked before every Run; null: never cancelled.
  std::function<bool()> is_cancelled;
  // Time spent waiting for the engine so far.
  absl::Duration waited;

  // Runs the segments, unless cancelled. Fails as their logits do (Segment::logits_status).
  absl::Status Run(absl::Span<Segment* const> segments);
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_EXECUTOR_H_
