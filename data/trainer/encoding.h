#ifndef DATA_TRAINER_ENCODING_H_
#define DATA_TRAINER_ENCODING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/trainer/corpus.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::trainer {

// Token ids of a conversation in Llama 3's chat format; the response, which
// alone is learned, starts at `response_start` and ends with <|eot_id|>.
struct EncodedConversation {
  std::vector<int64_t> ids;
  int64_t response_start = 0;
};

absl::StatusOr<EncodedConversation> EncodeConversation(const engine::Tokenizer& tokenizer,
                                                       const Conversation& conversation);

// A user's prompt up to the opened assistant turn; `tail_length` tokens follow
// the instruction.
struct EncodedPrompt {
  std::vector<int64_t> ids;
  int tail_length = 0;
};

absl::StatusOr<EncodedPrompt> EncodePrompt(const engine::Tokenizer& tokenizer, const std::string& prompt);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_ENCODING_H_
