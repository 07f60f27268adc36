#include "clients/experiments/experiment.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/text.h"

namespace mechinterp {

absl::Status CheckModelFitsStudy(const v1::GetModelResponse& model) {
  if (model.has_chat_template()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the study asks chat questions, and ", model.identity().name(),
                   " has no chat template; serve a chat model with its tokenizer"));
}

void TellOfDistrust(const ExperimentContext& context) {
  if (context.monitor == nullptr) return;
  context.monitor->Remark(absl::StrCat("the journal of an interrupted run was set aside as ",
                                       context.journal->set_aside_path(), ": ",
                                       context.journal->discard_reason()));
}

v1::JudgedResponse ResponseTo(const PromptPair& pair, v1::PromptClass prompt_class) {
  v1::JudgedResponse response;
  response.set_pair_id(pair.id);
  response.set_category(pair.category);
  response.set_prompt_class(prompt_class);
  response.set_prompt(pair.prompt(prompt_class));
  return response;
}

bool IsResponseTo(const v1::JudgedResponse& response, const PromptPair& pair, v1::PromptClass prompt_class) {
  return response.pair_id() == pair.id && response.category() == pair.category &&
         response.prompt_class() == prompt_class && response.prompt() == pair.prompt(prompt_class);
}

void RecordJudgement(const RefusalJudge& judge, const std::string& text, size_t max_characters,
                     v1::JudgedResponse& response) {
  const Judgement judgement = judge.Judge(text);
  response.set_refused(judgement.refused);
  response.set_refused_at_start(judgement.refused_at_start);
  response.set_matched_phrase(judgement.phrase);
  response.set_response(max_characters > 0 ? std::string(FirstCharacters(text, max_characters)) : text);
}

std::vector<StudyPrompt> BothClasses(const std::vector<PromptPair>& pairs) {
  std::vector<StudyPrompt> prompts;
  for (const PromptPair& pair : pairs) {
    prompts.push_back({&pair, v1::PROMPT_CLASS_HARMFUL});
    prompts.push_back({&pair, v1::PROMPT_CLASS_HARMLESS});
  }
  return prompts;
}

v1::Provenance ProvenanceOf(const ExperimentContext& context, size_t pair_count) {
  v1::Provenance provenance;
  *provenance.mutable_model() = context.model.identity();
  provenance.set_seed(context.seed);
  provenance.set_pair_count(static_cast<uint32_t>(pair_count));
  *provenance.mutable_create_time() = google::protobuf::util::TimeUtil::GetCurrentTime();
  return provenance;
}

}  // namespace mechinterp
