#include <map>
#include <memory>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/commands/compare_tables.h"
#include "clients/commands/study.h"
#include "clients/commands/tool.h"
#include "clients/experiments/compare.h"
#include "clients/lib/selectors.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr size_t kShownDivergences = 5;

struct CompareFlags {
  StudyFlags study;
  std::vector<std::string> prompts;
  std::vector<std::string> token_ids;
  bool raw = false;
  int max_new_tokens = 0;
};

absl::StatusOr<std::vector<ComparedPrompt>> PromptsOf(const CompareFlags& flags,
                                                      const std::vector<PromptPair>& pairs) {
  std::vector<ComparedPrompt> prompts;
  const auto add = [&](const std::string& id, const std::string& text) {
    ComparedPrompt& prompt = prompts.emplace_back(ComparedPrompt{id, text, UserPrompt(text)});
    if (flags.raw) prompt.prompt.set_text(text);
  };
  for (const StudyPrompt& prompt : BothClasses(pairs)) {
    add(prompt.key(), prompt.pair->prompt(prompt.prompt_class));
  }
  for (const std::string& text : flags.prompts) add(absl::StrCat("prompt ", prompts.size() + 1), text);
  for (const std::string& list : flags.token_ids) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, ParseIndices(list));
    add(absl::StrCat("prompt ", prompts.size() + 1), absl::StrCat("token ids ", absl::StrJoin(ids, ",")));
    prompts.back().prompt.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  return prompts;
}

// "tiny-llama (3f2a...), quantization none, on cpu, at 127.0.0.1:50051"
std::string Describe(const v1::ModelIdentity& model, const std::string& address) {
  const auto plain = [](const std::string& enum_name) {
    return absl::AsciiStrToLower(enum_name.substr(enum_name.find('_') + 1));
  };
  return absl::StrCat(model.name(), " (", model.model_hash().substr(0, 12), "), quantization ",
                      plain(v1::Quantization_Name(model.quantization())), ", on ",
                      plain(v1::Device_Name(model.device())), ", at ", address);
}

// `has_tokenizer`: of the client's server. Without one tokens are shown as "#17".
absl::StatusOr<std::string> LargestDivergencesText(ModelClient& client, bool has_tokenizer,
                                                   const v1::CompareResults& results) {
  const std::vector<PositionReference> positions = LargestDivergences(results, kShownDivergences);
  if (positions.empty()) return std::string();
  std::map<uint32_t, std::string> texts;
  for (const PositionReference& reference : positions) {
    for (const uint32_t id :
         {reference.position().reference_top_token_id(), reference.position().other_top_token_id()}) {
      texts[id] = absl::StrCat("#", id);
      if (!has_tokenizer) continue;
      v1::DetokenizeRequest request;
      request.add_ids(id);
      ABSTRACT_ASSIGN_OR_RETURN(const v1::DetokenizeResponse response, client.Detokenize(request));
      texts[id] = response.text();
    }
  }
  return absl::StrCat("\nWhere the next token differs most, with the likeliest token of each\n",
                      DivergenceTable(positions, [&](uint32_t id) { return texts[id]; }));
}

absl::Status Print(Tool& tool, const ExperimentContext& context, const v1::CompareResults& results) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string divergences,
                            LargestDivergencesText(*context.client, context.model.has_tokenizer(), results));
  std::ostringstream out;
  out << "reference: " << Describe(results.provenance().model(), tool.server) << "\n"
      << "other:     " << Describe(results.other_model(), tool.other_server) << "\n"
      << "prompts: " << results.prompts_size() << "; positions: " << results.position_count() << ", of them "
      << results.counted_position_count()
      << " with different tokens up to there; each such context counts once\n"
      << "in brackets 95 % intervals: of means over prompts (bootstrap), of rates over positions "
         "(Wilson)\n\n"
      << NextTokenTable(results) << divergences
      << "\nResidual stream after each layer, |other - reference| / |reference|\n"
      << LayerTable(results);
  if (results.has_continuations()) out << "\n" << ContinuationText(results);
  tool.Print(out.str());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StudyRun>> Begin(Tool& tool, const CompareFlags& flags) {
  if (flags.prompts.empty() && flags.token_ids.empty())
    return StudyRun::Begin(tool, flags.study, v1::EXPERIMENT_KIND_COMPARE);
  for (const std::string& text : flags.prompts) {
    if (absl::StripAsciiWhitespace(text).empty()) {
      return absl::InvalidArgumentError("--prompt: must be a text that is not empty");
    }
  }
  StudyFlags without_pairs = flags.study;
  without_pairs.prompts.clear();
  return StudyRun::BeginWithoutPairs(tool, without_pairs, v1::EXPERIMENT_KIND_COMPARE);
}

absl::Status RunCommand(Tool& tool, const CompareFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto run, Begin(tool, flags));
  ABSTRACT_ASSIGN_OR_RETURN(const std::unique_ptr<ModelClient> other,
                            run->session().ConnectToAnother(tool.other_server));
  const absl::StatusOr<v1::GetModelResponse> other_model = other->GetModel();
  if (!other_model.ok()) return WithContext(other_model.status(), "--other-server");

  CompareOptions options;
  ABSTRACT_ASSIGN_OR_RETURN(options.prompts, PromptsOf(flags, run->pairs()));
  options.other_client = other.get();
  options.other_model = *other_model;
  options.max_new_tokens = flags.max_new_tokens;
  Fingerprint fingerprint = CompareFingerprint(run->context(), options);
  fingerprint["--server"] = tool.server;
  fingerprint["--other-server"] = tool.other_server;
  ABSTRACT_RETURN_IF_ERROR(run->OpenJournal(fingerprint));
  if (run->is_finished()) return run->ShowFinished();
  ABSTRACT_ASSIGN_OR_RETURN(v1::CompareResults results, RunCompare(run->context(), options));
  results.mutable_provenance()->set_pair_count(static_cast<uint32_t>(run->pairs().size()));
  ABSTRACT_RETURN_IF_ERROR(run->Finish(results));
  if (tool.json) return PrintJson(tool, results);
  return Print(tool, run->context(), results);
}

}  // namespace

void AddCompareCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "compare", "Compare another server's outputs (say, of a quantized model) with this one's");
  const auto flags = std::make_shared<CompareFlags>();
  command
      .AddOption("--other-server", tool.other_server,
                 "Address of the model service to compare with --server, the reference")
      .Required();
  flags->study.AddTo(command);
  command.AddOption("--prompt", flags->prompts, "Prompt to use instead of --prompts; may be repeated")
      .OneValueEachTime();
  command
      .AddOption("--token-ids", flags->token_ids,
                 "The same as token ids, as in 1,2,3 or 5:9, for models without a tokenizer; may be repeated")
      .OneValueEachTime();
  command.AddFlag("--raw", flags->raw, "Prompts are raw text to continue, not chat messages");
  command
      .AddOption("--max-new-tokens", flags->max_new_tokens,
                 "Compare greedy continuations of this length too; 0: none")
      .InRange(0, 1 << 20);
  tool.SetActionOf(command, [&tool, flags] { return RunCommand(tool, *flags); });
}

}  // namespace mechinterp
