#include <memory>

#include "absl/strings/str_format.h"
#include "clients/commands/edit_flags.h"
#include "clients/commands/prompt_flags.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/lib/continuation_text.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

struct GenerateFlags {
  PromptFlags prompt;
  SamplingFlags sampling;
  std::string interventions_file;
};

std::string Describe(const v1::GenerateSummary& summary) {
  const int count = summary.continuation().token_ids_size();
  const double seconds = static_cast<double>(google::protobuf::util::TimeUtil::DurationToMilliseconds(
                             summary.timings().run_duration())) /
                         1000;
  const bool stopped = summary.continuation().finish_reason() == v1::FINISH_REASON_STOP_TOKEN;
  return absl::StrFormat("(%d tokens in %.2f s, %s)", count, seconds,
                         stopped ? "stopped by the model" : "cut at --max-new-tokens");
}

absl::Status RunGenerate(Tool& tool, const GenerateFlags& flags) {
  v1::GenerateRequest request;
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_prompt(), flags.prompt.Read(tool.streams.in));
  *request.mutable_sampling() = flags.sampling.ToProto();
  if (!flags.interventions_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const v1::InterventionSet set, ReadInterventions(flags.interventions_file));
    *request.mutable_interventions() = set.interventions();
  }
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "generate"));
  if (tool.json) {
    ABSTRACT_ASSIGN_OR_RETURN(const Generation generation, session->client().Generate(request));
    return PrintJson(tool, generation.summary);
  }
  const auto show = [&](std::string_view text) { tool.streams.out << text << std::flush; };
  ABSTRACT_ASSIGN_OR_RETURN(const Generation generation, session->client().Generate(request, show));
  const v1::Continuation& continuation = generation.summary.continuation();
  if (continuation.text().empty()) tool.streams.out << TextOrIds(continuation);
  tool.streams.out << std::endl;
  tool.Note(Describe(generation.summary));
  return absl::OkStatus();
}

}  // namespace

void AddGenerateCommand(Command app, Tool& tool) {
  const Command command =
      app.AddSubcommand("generate", "Answer a message or continue a text, streaming the output");
  const auto flags = std::make_shared<GenerateFlags>();
  flags->prompt.AddTo(command);
  flags->sampling.AddTo(command);
  command.AddOption("--interventions", flags->interventions_file,
                    "JSON file of interventions in force while generating, {\"interventions\": [...]}");
  tool.SetActionOf(command, [&tool, flags] { return RunGenerate(tool, *flags); });
}

}  // namespace mechinterp
