#ifndef CLIENTS_COMMANDS_METRIC_FLAGS_H_
#define CLIENTS_COMMANDS_METRIC_FLAGS_H_

#include <string>

#include "absl/status/statusor.h"
#include "clients/commands/prompt_flags.h"
#include "clients/commands/study.h"
#include "clients/lib/model_client.h"

namespace mechinterp {

// How the tokens that a metric compares are given: by openings, or by id.
struct MetricFlags {
  OpeningFlags openings;
  std::string refusal_ids, compliance_ids;

  void AddTo(Command command);
  // Whether there are any for a prompt of this form: one of token ids has no openings.
  bool Suit(const PromptFlags& prompt) const;
  // The openings' first tokens, which the service is asked for, or those given by id.
  // InvalidArgument where they do not suit the prompt.
  absl::StatusOr<v1::MetricOptions> Make(ModelClient& client, const PromptFlags& prompt) const;
};

}  // namespace mechinterp

#endif  // CLIENTS_COMMANDS_METRIC_FLAGS_H_
