#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/commands/edit_flags.h"
#include "clients/commands/metric_flags.h"
#include "clients/commands/prompt_flags.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/lib/files.h"
#include "clients/lib/selectors.h"
#include "clients/lib/text_table.h"
#include "mechinterp/v1/tool.pb.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/safetensors_writer.h"

namespace mechinterp {
namespace {

struct AttributeFlags {
  PromptFlags prompt;
  std::string source_prompt;
  std::string source_token_ids;
  std::vector<std::string> filters = {"blocks.*.attn.hook_z", "blocks.*.mlp.hook_post"};
  bool filter_is_given = false;
  std::string positions;
  std::string method = "gradient";
  int steps = 5;
  bool exact_softmax = false;
  std::string metric = "logit-difference";
  MetricFlags tokens;
  std::string interventions_file;
  bool sum_positions = false;
  bool edges = false;
  int top = 20;
  bool gradients = false;
  std::string output;
};

v1::AttributionMethod MethodOf(const std::string& word) {
  if (word == "grad-drop") return v1::ATTRIBUTION_METHOD_GRAD_DROP;
  if (word == "integrated-gradients") return v1::ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS;
  if (word == "relevance") return v1::ATTRIBUTION_METHOD_RELEVANCE;
  return v1::ATTRIBUTION_METHOD_GRADIENT;
}

v1::AttributionMetric MetricOf(const std::string& word) {
  if (word == "refusal-log-odds") return v1::ATTRIBUTION_METRIC_REFUSAL_LOG_ODDS;
  if (word == "kl") return v1::ATTRIBUTION_METRIC_KL_FROM_CLEAN;
  return v1::ATTRIBUTION_METRIC_LOGIT_DIFFERENCE;
}

absl::StatusOr<v1::Prompt> SourcePrompt(const AttributeFlags& flags) {
  if (flags.source_prompt.empty() == flags.source_token_ids.empty()) {
    return FlagError("--source-prompt", "give one, or --source-token-ids: what the prompt is compared with");
  }
  if (!flags.source_prompt.empty()) return flags.prompt.Wrap(flags.source_prompt);
  v1::Prompt prompt;
  ABSTRACT_ASSIGN_OR_RETURN(const auto ids, ParseIndices(flags.source_token_ids));
  prompt.mutable_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
  return prompt;
}

absl::StatusOr<v1::RunAttributionRequest> MakeRequest(const Tool& tool, const AttributeFlags& flags,
                                                      ModelClient& client) {
  v1::RunAttributionRequest request;
  v1::AttributionPair& pair = *request.add_pairs();
  ABSTRACT_ASSIGN_OR_RETURN(*pair.mutable_source_prompt(), SourcePrompt(flags));
  ABSTRACT_ASSIGN_OR_RETURN(*pair.mutable_prompt(), flags.prompt.Read(tool.streams.in));
  request.set_metric(MetricOf(flags.metric));
  if (request.metric() != v1::ATTRIBUTION_METRIC_KL_FROM_CLEAN) {
    ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_metrics(), flags.tokens.Make(client, flags.prompt));
  }
  request.set_method(MethodOf(flags.method));
  if (request.method() == v1::ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS) {
    request.set_steps(static_cast<uint32_t>(flags.steps));
  }
  request.set_exact_softmax(flags.exact_softmax);
  request.set_edges(flags.edges);
  if (flags.edges && (!flags.output.empty() || !flags.positions.empty() || flags.filter_is_given)) {
    return FlagError(
        "--edges",
        "goes with --top, not with --output, --positions or --filter: they are of the whole model, "
        "at all positions");
  }
  if (flags.exact_softmax && !flags.filter_is_given) {
    return FlagError("--exact-softmax",
                     "is of queries and keys: give --filter 'blocks.*.attn.hook_q', hook_k, or both");
  }
  if (!flags.edges) {
    request.mutable_filter()->mutable_name_patterns()->Assign(flags.filters.begin(), flags.filters.end());
    ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_filter()->mutable_positions(),
                              ParsePositions(flags.positions));
  }
  if (!flags.interventions_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const v1::InterventionSet set, ReadInterventions(flags.interventions_file));
    *request.mutable_interventions() = set.interventions();
  }
  if (flags.gradients && flags.output.empty()) {
    return FlagError("--gradients", "they are tensors: give --output FILE.safetensors to write them to");
  }
  request.set_return_gradients(flags.gradients);
  request.set_sum_positions(flags.sum_positions);
  if (flags.output.empty()) request.set_top_count(static_cast<uint32_t>(flags.top));
  return request;
}

absl::Status WriteTensors(const AttributionRun& run, const AttributeFlags& flags) {
  const AttributionOfPair& of_pair = run.pairs[0];
  std::vector<engine::TensorToWrite> tensors;
  for (const Activation& tensor : of_pair.tensors) {
    engine::TensorToWrite written;
    written.name = tensor.info.name();
    written.shape.assign(tensor.info.shape().begin(), tensor.info.shape().end());
    written.values = tensor.values;
    tensors.push_back(std::move(written));
  }
  const v1::ModelIdentity& model = run.header.model();
  return engine::WriteSafetensors(flags.output, tensors,
                                  {{"format", "abstract-attribution-1"},
                                   {"model", model.name()},
                                   {"model_hash", model.model_hash()},
                                   {"quantization", v1::Quantization_Name(model.quantization())},
                                   {"content", flags.gradients ? "gradients" : "scores"},
                                   {"method", flags.method},
                                   {"metric", flags.metric},
                                   {"prompt_token_ids", absl::StrJoin(of_pair.pair.prompt_token_ids(), ",")},
                                   {"source_token_ids", absl::StrJoin(of_pair.pair.source_token_ids(), ",")},
                                   {"positions", flags.positions.empty() ? "all" : flags.positions}});
}

std::string ScoresTable(const AttributionOfPair& of_pair,
                        const google::protobuf::RepeatedPtrField<v1::HookPointInfo>& points) {
  TextTable table({"node", "position", "token", "score"});
  table.AlignLeft({2});
  const auto name_of = [&](const v1::HookSite& site) {
    for (const v1::HookPointInfo& point : points) {
      if (point.site().point() == site.point() && point.site().layer() == site.layer()) return point.name();
    }
    return v1::HookPoint_Name(site.point());
  };
  for (const v1::AttributionScore& score : of_pair.largest) {
    std::string node = name_of(score.site());
    if (score.has_node()) absl::StrAppend(&node, "[", score.node(), "]");
    std::string position = "all", token;
    if (score.has_position()) {
      position = absl::StrCat(score.position());
      token = OneLine(of_pair.pair.prompt_pieces(static_cast<int>(score.position())), 16);
    }
    table.AddRow({node, position, token, absl::StrFormat("%+.4f", score.score())});
  }
  return table.ToString();
}

std::string EdgesTable(const AttributionOfPair& of_pair) {
  TextTable table({"edge", "score"});
  for (const v1::AttributionEdge& edge : of_pair.edges) {
    table.AddRow({edge.name(), absl::StrFormat("%+.4f", edge.score())});
  }
  return table.ToString();
}

absl::Status RunAttribute(Tool& tool, const AttributeFlags& flags) {
  if (!flags.output.empty()) ABSTRACT_RETURN_IF_ERROR(CheckWritable(flags.output));
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "attribute"));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::RunAttributionRequest request,
                            MakeRequest(tool, flags, session->client()));
  ABSTRACT_ASSIGN_OR_RETURN(const AttributionRun run, session->client().RunAttribution(request));
  const AttributionOfPair& of_pair = run.pairs[0];
  v1::AttributeReport report;
  *report.mutable_model() = run.header.model();
  *report.mutable_pair() = of_pair.pair;
  report.mutable_scores()->Assign(of_pair.largest.begin(), of_pair.largest.end());
  report.mutable_edges()->Assign(of_pair.edges.begin(), of_pair.edges.end());
  if (!flags.output.empty()) {
    ABSTRACT_RETURN_IF_ERROR(WriteTensors(run, flags));
    report.set_output_path(flags.output);
  }
  if (tool.json) return PrintJson(tool, report);
  tool.Note(
      absl::StrFormat("%s: prompt %.4f, source %.4f; scores estimate what a node's source value changes",
                      flags.metric, of_pair.pair.metric(), of_pair.pair.source_metric()));
  if (!flags.output.empty()) {
    tool.streams.out << flags.output << std::endl;
    return absl::OkStatus();
  }
  if (flags.edges) {
    tool.Print(EdgesTable(of_pair));
    return absl::OkStatus();
  }
  ABSTRACT_ASSIGN_OR_RETURN(const v1::ListHookPointsResponse points, session->client().ListHookPoints(""));
  tool.Print(ScoresTable(of_pair, points.hook_points()));
  return absl::OkStatus();
}

}  // namespace

void AddAttributeCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "attribute",
      "Estimate by gradients what each node would do if it had its value in another prompt's run");
  const auto flags = std::make_shared<AttributeFlags>();
  flags->prompt.AddTo(command);
  command.AddOption("--source-prompt", flags->source_prompt, "The prompt to compare with, of the same form");
  command.AddOption("--source-token-ids", flags->source_token_ids, "The same as token ids, with commas");
  const Option filter =
      command.AddOption("--filter", flags->filters, "Glob over hook names: where nodes are; may be repeated")
          .OneValueEachTime();
  command.AddOption("--positions", flags->positions,
                    "3, -1, 0:5, last, last-instruction, tail, decision, several with commas; default all");
  command
      .AddOption("--method", flags->method,
                 "How scores are made: AtP, AtP*'s GradDrop, EAP-IG's integrated gradients, RelP")
      .OneOf({"gradient", "grad-drop", "integrated-gradients", "relevance"});
  command.AddOption("--steps", flags->steps, "Of integrated gradients").InRange(1, 64);
  command.AddFlag("--exact-softmax", flags->exact_softmax,
                  "At hook_q and hook_k compute the softmax anew (AtP*'s QK fix)");
  command.AddOption("--metric", flags->metric, "What is attributed")
      .OneOf({"logit-difference", "refusal-log-odds", "kl"});
  flags->tokens.AddTo(command);
  command.AddOption("--interventions", flags->interventions_file,
                    "JSON file of interventions in force in the prompt's run");
  command.AddFlag("--sum-positions", flags->sum_positions, "Sum scores over the positions");
  command.AddFlag("--edges", flags->edges, "Score edges, from all that writes to all that reads after it");
  command.AddOption("--top", flags->top, "How many scores to show").InRange(1, 100000);
  command.AddFlag("--gradients", flags->gradients, "With --output: the gradients themselves");
  command.AddOption("--output,-o", flags->output, "Write all scores to this .safetensors file instead")
      .Environment("ABSTRACT_ATTRIBUTE_OUTPUT");
  tool.SetActionOf(command, [&tool, flags, filter] {
    flags->filter_is_given = filter.given();
    return RunAttribute(tool, *flags);
  });
}

}  // namespace mechinterp
