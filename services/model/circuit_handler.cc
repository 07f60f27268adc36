#include "services/model/circuit_handler.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/circuit_run.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"

namespace mechinterp {
namespace {

constexpr int kMostCircuits = 10'000;

// What circuits choose from; one of the two is empty.
struct Choice {
  std::vector<engine::Edge> edges;
  std::vector<engine::Node> nodes;
};

class CircuitParser {
 public:
  CircuitParser(ServiceCall& call, const v1::RunCircuitRequest& request)
      : request_(request),
        config_(call.served.config()),
        parser_(*call.served.model, call.served.store, call.owner()) {}

  // But how circuits are made.
  absl::StatusOr<engine::CircuitRequest> Parse() {
    engine::CircuitRequest parsed;
    const FieldViolations root = parser_.violations();
    parsed.metrics = parser_.Metrics(request_.metrics(), root.At("metrics"));
    RequestParser::RefuseOpenings(request_.metrics(), root.At("metrics"));
    parsed.prompt = parser_.PromptToRun(request_.prompt(), 0, root.At("prompt"));
    parsed.source = parser_.PromptToRun(request_.source_prompt(), 0, root.At("source_prompt"));
    if (parsed.prompt.length() > 0 && parsed.source.length() > 0 &&
        parsed.prompt.length() != parsed.source.length()) {
      root.At("source_prompt")
          .Add(absl::StrCat("has ", parsed.source.length(), " tokens, the prompt ", parsed.prompt.length(),
                            "; circuits need one length"));
    }
    ParseChoice();
    ParseCircuits();
    ABSTRACT_RETURN_IF_ERROR(parser_.status());
    parsed.circuit_count = request_.circuits_size();
    return parsed;
  }

  const Choice& choice() const { return choice_; }

 private:
  void ParseChoice() {
    if (request_.edges().empty() == request_.nodes().empty()) {
      parser_.violations().At("edges").Add("exactly one of edges and nodes must be given");
      return;
    }
    ParseNames(request_.edges(), "edges", engine::EdgeOfName, choice_.edges);
    ParseNames(request_.nodes(), "nodes", engine::NodeOfName, choice_.nodes);
  }

  // Up to the first fault: the others may be wrong in the same way, and are many.
  template <typename Item>
  void ParseNames(const google::protobuf::RepeatedPtrField<std::string>& names, absl::string_view field,
                  absl::StatusOr<Item> (*parse)(absl::string_view, const engine::ModelConfig&),
                  std::vector<Item>& items) {
    std::set<Item> distinct;
    for (int i = 0; i < names.size(); ++i) {
      const FieldViolations at = parser_.violations().At(field, i);
      const absl::StatusOr<Item> item = parse(names[i], config_);
      if (!item.ok()) return at.Add(item.status().message());
      if (!distinct.insert(*item).second) return at.Add(absl::StrCat(names[i], " is listed twice"));
      items.push_back(*item);
    }
  }

  void ParseCircuits() {
    const FieldViolations root = parser_.violations();
    if (request_.circuits().empty() || request_.circuits_size() > kMostCircuits) {
      return root.At("circuits").Add(absl::StrCat("must be 1 to ", kMostCircuits));
    }
    const auto count = static_cast<uint32_t>(std::max(request_.edges_size(), request_.nodes_size()));
    for (int i = 0; i < request_.circuits_size() && root.empty(); ++i) {
      const v1::CircuitMembers& circuit = request_.circuits(i);
      const FieldViolations at = root.At("circuits", i);
      if (circuit.leading() > count) at.At("leading").Add(absl::StrCat("must be at most ", count));
      CheckIndices(circuit.members(), count, at, "members");
      CheckIndices(circuit.except(), count, at, "except");
    }
  }

  static void CheckIndices(const google::protobuf::RepeatedField<uint32_t>& indices, uint32_t count,
                           const FieldViolations& at, absl::string_view field) {
    for (int i = 0; i < indices.size(); ++i) {
      if (indices[i] >= count) {
        return at.At(field, i).Add(absl::StrCat(indices[i], " is not in [0, ", count, ")"));
      }
    }
  }

  const v1::RunCircuitRequest& request_;
  const engine::ModelConfig& config_;
  RequestParser parser_;
  Choice choice_;
};

template <typename Item>
std::vector<Item> MembersOf(const v1::CircuitMembers& circuit, const std::vector<Item>& items) {
  std::vector<bool> in(items.size());
  std::fill_n(in.begin(), circuit.leading(), true);
  for (const uint32_t index : circuit.members()) in[index] = true;
  for (const uint32_t index : circuit.except()) in[index] = false;
  std::vector<Item> members;
  for (size_t i = 0; i < items.size(); ++i) {
    if (in[i]) members.push_back(items[i]);
  }
  return members;
}

engine::Circuit BuildCircuit(const engine::ModelConfig& config, const v1::CircuitMembers& circuit,
                             const Choice& choice) {
  if (choice.edges.empty()) {
    return engine::CircuitOfNodes(config, MembersOf(circuit, choice.nodes), circuit.complement());
  }
  return engine::CircuitOfEdges(config, MembersOf(circuit, choice.edges), circuit.complement());
}

// The most that any of the circuits can take.
int64_t EstimateBytes(const engine::ModelConfig& config, const v1::RunCircuitRequest& request,
                      const engine::CircuitRequest& parsed, const Choice& choice, int batch_rows) {
  const bool complements =
      std::any_of(request.circuits().begin(), request.circuits().end(),
                  [](const v1::CircuitMembers& circuit) { return circuit.complement(); });
  auto senders = static_cast<int64_t>(engine::Senders(config).size());
  int64_t readers = config.head_count + 2 * int64_t{config.key_value_head_count};
  if (!complements && !choice.edges.empty()) {
    std::set<engine::Sender> distinct;
    for (const engine::Edge& edge : choice.edges) distinct.insert(edge.sender);
    senders = static_cast<int64_t>(distinct.size());
    readers = std::min(readers, static_cast<int64_t>(choice.edges.size()));
  }
  if (choice.edges.empty()) readers = 3;  // of queries, keys and values, each all alike
  return engine::CircuitBytes(config, parsed.prompt.length(), parsed.metrics, senders, readers, batch_rows);
}

class CircuitWriter {
 public:
  CircuitWriter(ServedModel& served, const engine::CircuitRequest& parsed,
                MessageWriter<v1::RunCircuitResponse>& writer)
      : served_(served), parsed_(parsed), writer_(writer) {}

  engine::CircuitSink Sink() {
    return {[this](const engine::CircuitBaselines& baselines) { return WriteHeader(baselines); },
            [this](const engine::CircuitResult& result) { return WriteResult(result); }};
  }

  absl::Status WriteSummary(const v1::RunTimings& timings) {
    v1::RunCircuitResponse message;
    *message.mutable_summary()->mutable_timings() = timings;
    return writer_.Write(message);
  }

 private:
  absl::Status WriteHeader(const engine::CircuitBaselines& baselines) {
    v1::RunCircuitResponse message;
    v1::CircuitHeader& header = *message.mutable_header();
    *header.mutable_model() = served_.Identity();
    header.set_circuit_count(static_cast<uint32_t>(parsed_.circuit_count));
    *header.mutable_clean() = BuildMetrics(*served_.model, baselines.clean);
    *header.mutable_source() = BuildMetrics(*served_.model, baselines.source);
    for (const engine::TokenId id : parsed_.prompt.ids) header.add_prompt_token_ids(id);
    for (const engine::TokenId id : parsed_.source.ids) header.add_source_token_ids(id);
    return writer_.Write(message);
  }

  absl::Status WriteResult(const engine::CircuitResult& result) {
    v1::RunCircuitResponse message;
    v1::CircuitResult& entry = *message.mutable_result();
    entry.set_circuit_index(static_cast<uint32_t>(result.index));
    *entry.mutable_metrics() = BuildMetrics(*served_.model, result.metrics);
    if (result.faithfulness) entry.set_faithfulness(*result.faithfulness);
    entry.set_edge_count(static_cast<uint32_t>(result.edge_count));
    served_.metrics.circuit_runs.Increment();
    return writer_.Write(message);
  }

  ServedModel& served_;
  const engine::CircuitRequest& parsed_;
  MessageWriter<v1::RunCircuitResponse>& writer_;
};

}  // namespace

absl::Status HandleRunCircuit(ServiceCall& call, const v1::RunCircuitRequest& request,
                              MessageWriter<v1::RunCircuitResponse>& writer) {
  const engine::ModelConfig& config = call.served.config();
  CircuitParser parser(call, request);
  ABSTRACT_ASSIGN_OR_RETURN(engine::CircuitRequest parsed, parser.Parse());
  parsed.circuit = [&](int i) { return BuildCircuit(config, request.circuits(i), parser.choice()); };
  ABSTRACT_RETURN_IF_ERROR(call.Admit(
      EstimateBytes(config, request, parsed, parser.choice(), call.request.preferred_batch_rows())));
  call.CountPrompt(parsed.prompt, 2 * parsed.prompt.length());
  CircuitWriter out(call.served, parsed, writer);
  ABSTRACT_RETURN_IF_ERROR(engine::RunCircuits(call.context, parsed, out.Sink()));
  return out.WriteSummary(call.Timings());
}

}  // namespace mechinterp
