// Requests of the model service, see service_calls.h, as far as they are read: the message, its
// limits, the engine's types, the plans of what is edited and recorded. Nothing runs.

#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "mechinterp/v1/model_service.pb.h"
#include "prometheus/registry.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/engine/interventions/circuit.h"
#include "services/engine/interventions/plan_compiler.h"
#include "services/engine/interventions/sweep_grid.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_limits.h"
#include "services/model/request_parsing.h"
#include "services/model/store_metrics.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/service_calls.h"
#include "tests/fuzz/tiny_model.h"

namespace mechinterp {
namespace {

using engine::PlanCompiler;
using fuzz::Require;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int64_t kMostPlanBytes = 1 << 20;  // of plans that are made

const engine::ModelConfig& Config() { return fuzz::TinyModel()->config(); }

ActivationStore& Store() {
  static auto& registry =
      *new std::shared_ptr<prometheus::Registry>(std::make_shared<prometheus::Registry>());
  static auto& metrics = *new StoreMetrics(*registry);
  ActivationStoreOptions options;
  options.max_memory_bytes = 1 << 20;
  static auto& store = *new ActivationStore(options, metrics);
  return store;
}

// Reads every part of a request that the handlers read, wherever it stands.
class RequestReader {
 public:
  explicit RequestReader(const Message& request) : parser_(*fuzz::TinyModel(), Store()) {
    Visit(request, parser_.violations(), &RequestReader::ReadPrompt);
    if (prompts_.empty() || prompts_[0].length() == 0)
      prompts_.insert(prompts_.begin(), {{1, 2, 3, 4, 5}, 3});
    Visit(request, parser_.violations(), &RequestReader::ReadPart);
  }

  absl::Status status() const { return parser_.status(); }

 private:
  using Read = void (RequestReader::*)(const Message& part, const FieldViolations& at);

  void Visit(const Message& message, const FieldViolations& at, Read read) {
    (this->*read)(message, at);
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
      const auto& reflection = *message.GetReflection();
      const std::string& name = field->name();
      if (!field->is_repeated()) {
        Visit(reflection.GetMessage(message, field), at.At(name), read);
        continue;
      }
      for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
        Visit(reflection.GetRepeatedMessage(message, field, i), at.At(name, i), read);
      }
    }
  }

  void ReadPrompt(const Message& part, const FieldViolations& at) {
    if (const auto* prompt = dynamic_cast<const v1::Prompt*>(&part)) {
      prompts_.push_back(parser_.PromptToRun(*prompt, 0, at));
    }
  }

  void ReadPart(const Message& part, const FieldViolations& at) {
    if (const auto* sampling = dynamic_cast<const v1::SamplingOptions*>(&part)) {
      const engine::SamplingOptions options = parser_.Sampling(*sampling, at);
      Require(
          !at.empty() || (options.max_new_tokens >= 0 && options.max_new_tokens <= Config().context_length),
          "a continuation fits into the context");
    } else if (const auto* metrics = dynamic_cast<const v1::MetricOptions*>(&part)) {
      parser_.Metrics(*metrics, at);
      RequestParser::RefuseOpenings(*metrics, at);
    } else if (const auto* filter = dynamic_cast<const v1::ActivationFilter*>(&part)) {
      Compile({}, ParseFilter(parser_, *filter, at), at);
    } else if (const auto* grid = dynamic_cast<const v1::SweepGrid*>(&part)) {
      ReadGrid(*grid, at);
    } else if (const auto* circuit = dynamic_cast<const v1::RunCircuitRequest*>(&part)) {
      for (const std::string& name : circuit->edges()) CheckName(engine::EdgeOfName(name, Config()), name);
      for (const std::string& name : circuit->nodes()) CheckName(engine::NodeOfName(name, Config()), name);
    } else if (const FieldDescriptor* field = part.GetDescriptor()->FindFieldByName("interventions")) {
      google::protobuf::RepeatedPtrField<v1::Intervention> list;
      const auto& reflection = *part.GetReflection();
      for (int i = 0; i < reflection.FieldSize(part, field); ++i) {
        list.Add()->CopyFrom(reflection.GetRepeatedMessage(part, field, i));
      }
      Compile(ParseInterventions(parser_, list, at), {}, at);
    }
  }

  // What a name stands for has that name.
  template <typename Item>
  static void CheckName(const absl::StatusOr<Item>& item, const std::string& name) {
    Require(!item.ok() || NameOf(*item) == name, "an edge or a node has one name");
  }

  void ReadGrid(const v1::SweepGrid& request, const FieldViolations& at) {
    const engine::SweepGrid grid = ParseGrid(parser_, request, at);
    if (!parser_.status().ok()) return;
    const int64_t bytes = engine::ExpandedGridBytes(grid, Config(), prompts_[0]);
    Require(bytes >= 0, "what a grid takes does not overflow");
    const engine::ExpandedGrid expanded = engine::ExpandGrid(grid, Config(), prompts_[0], at);
    Require(expanded.sets.size() == expanded.sites.size(), "each set has a site");
    for (size_t i = 0; i < expanded.sets.size() && at.empty(); ++i)
      Compile(expanded.sets[i], {}, at.At("expanded", i));
  }

  void Compile(const engine::InterventionSet& interventions, const engine::CaptureRequest& capture,
               const FieldViolations& at) {
    if (!at.empty()) return;
    PlanCompiler compiler(Config());
    RequestParser::Compile(prompts_[0], interventions, capture, compiler, at);
    if (!at.empty()) return;
    Require(compiler.PlanBytes() >= 0 && compiler.LargestSumBytes() >= 0,
            "what plans take does not overflow");
    for (const engine::EntryPoint& entry : compiler.EntryPoints()) {
      Require(entry.layer >= 0 && entry.layer <= Config().layer_count(), "a plan begins in the model");
    }
    // Other prompts would have to run.
    if (!compiler.source_runs().empty() || compiler.PlanBytes() > kMostPlanBytes) return;
    Require(compiler.Finish({}).size() == 1, "a set has a plan");
  }

  RequestParser parser_;
  std::vector<engine::TokenizedPrompt> prompts_;
};

absl::Status ReadRequest(const google::protobuf::Descriptor* type, grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  Require(buffer.Dump(&slices).ok(), "a request has bytes");
  std::string bytes;
  for (const grpc::Slice& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  const std::unique_ptr<Message> request(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
  if (!request->ParseFromString(bytes)) return absl::InvalidArgumentError("no message");
  ABSTRACT_RETURN_IF_ERROR(CheckRequestLimits(*request));
  return RequestReader(*request).status();
}

std::vector<Method> Methods() {
  const auto* const service = v1::GetModelRequest::descriptor()->file()->FindServiceByName("ModelService");
  std::vector<Method> methods;
  for (int i = 0; i < service->method_count(); ++i) {
    const auto* const type = service->method(i)->input_type();
    methods.push_back({service->method(i), {}, [type](Call&, grpc::ByteBuffer& bytes) {
                         return ReadRequest(type, bytes);
                       }});
  }
  return methods;
}

}  // namespace
}  // namespace mechinterp

ABSTRACT_FUZZ_TARGET(model_requests) {
  using namespace mechinterp;
  static const auto& methods = *new std::vector<Method>(Methods());
  fuzz::RunCalls(methods, input, [](const auto&, const fuzz::Answer&) {});
}
