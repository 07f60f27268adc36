// Calls of the model service, over a tiny model that runs; see service_calls.h.

#include "prometheus/registry.h"
#include "services/model/model_metrics.h"
#include "services/model/model_service.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/service_calls.h"
#include "tests/fuzz/tiny_model.h"

namespace mechinterp {
namespace {

struct RunningService {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics{registry};
  ModelService service{fuzz::TinyModel(), {}, metrics};
  ServiceMethods methods = service.Methods();
};

}  // namespace
}  // namespace mechinterp

ABSTRACT_FUZZ_TARGET(model_service) {
  using namespace mechinterp;
  static auto& running = *new RunningService();
  fuzz::RunCalls(running.methods.Complete(), input, [](const auto&, const fuzz::Answer&) {});
}
