#ifndef SERVICES_ENGINE_TOKENIZER_DECODER_H_
#define SERVICES_ENGINE_TOKENIZER_DECODER_H_

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/text_pattern.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// The last stage: makes text of tokens, as they are written in tokenizer.json.
// Immutable: safe from any thread.
class Decoder {
 public:
  // Errors: those of TextPattern::Compile.
  static absl::StatusOr<Decoder> Create(const std::vector<DecoderStep>& steps);

  // Where a decoding stands. For any split of a sequence into calls of Push, their
  // results and that of Flush are together the text of the sequence.
  struct State {
    struct OfStep {
      std::string held;    // bytes that may go on in the next token
      bool begun = false;  // a token has been seen
      int cut = 0;         // characters stripped so far; -1: no more will be
    };
    std::vector<OfStep> steps;
  };
  // The text that became certain with this token, well-formed; may be empty.
  std::string Push(std::string_view token, State* state) const;
  // What is left at the end of the sequence.
  std::string Flush(State* state) const;

  // The bytes that a token stands for amid others; may be part of a character.
  std::string TokenBytes(std::string_view token) const;

 private:
  struct CompiledReplace {
    TextPattern pattern;
    std::string content;
  };
  // Of the text that tokens have been fused to; its pieces are not whole tokens.
  struct StripStart {
    std::string content;
    int count = 0;
  };
  struct JoinBySpaces {};  // what no decoder at all means
  using Step = std::variant<CompiledReplace, ByteLevelDecoder, ByteFallbackDecoder, StripDecoder, StripStart,
                            MetaspaceDecoder, JoinBySpaces>;
  using Texts = std::vector<std::string>;
  struct Run;  // one step's work on some of its input

  explicit Decoder(std::vector<Step> steps) : steps_(std::move(steps)) {}
  std::string Apply(Texts texts, bool at_end, State* state) const;

  std::vector<Step> steps_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_DECODER_H_
