#ifndef SERVICES_ENGINE_TOKENIZER_TEXT_FRAME_H_
#define SERVICES_ENGINE_TOKENIZER_TEXT_FRAME_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/base/token_id.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "services/engine/tokenizer/tokenizer_config.h"

namespace mechinterp::engine {

// What stands around a raw text.
struct TextFrame {
  std::vector<TokenId> before;  // begin-of-text
  std::vector<TokenId> after;
  // Where it is another than the post-processor's: what it is, and why.
  std::string remark;
};

// What tokenizer.json's post-processor says, unless tokenizer_config.json has
// add_bos_token or add_eos_token and names one of these classes, Fast or not: they put a
// post-processor of their own in its place. With one of both missing it is taken for
//   LlamaTokenizer, CodeLlamaTokenizer, GemmaTokenizer, CohereTokenizer   true, false
//   GPTNeoXTokenizer                                                      false, false
// So does transformers 4, with which such checkpoints were published: DeepSeek-R1-Distill
// has its begin-of-text there alone. (With both missing it takes the same for granted.)
// Its other classes (PreTrainedTokenizerFast, Qwen2Tokenizer, GPT2Tokenizer) heed neither.
// transformers 5 heeds neither in any class, where there is a tokenizer.json, and writes
// neither: therefore the post-processor counts where both are missing.
//
// A pure function. Errors: InvalidArgument where a token that is asked for is none of
// the tokenizer's.
absl::StatusOr<TextFrame> TextFrameOf(const Tokenizer& tokenizer, const TokenizerConfig& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_TEXT_FRAME_H_
