#ifndef SERVICES_ENGINE_TOKENIZER_NORMALIZER_H_
#define SERVICES_ENGINE_TOKENIZER_NORMALIZER_H_

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/text_pattern.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// The first stage: rewrites the text between added tokens, each stretch by itself.
// Immutable: safe from any thread.
class Normalizer {
 public:
  // Errors: those of TextPattern::Compile.
  static absl::StatusOr<Normalizer> Create(const std::vector<NormalizerStep>& steps);

  // `text` may be malformed UTF-8; what is malformed stays as it is.
  std::string Normalize(std::string_view text) const;

 private:
  struct CompiledReplace {
    TextPattern pattern;
    std::string content;
  };
  using Step = std::variant<Prepend, CompiledReplace, UnicodeForm, StripWhiteSpace>;

  explicit Normalizer(std::vector<Step> steps) : steps_(std::move(steps)) {}
  std::vector<Step> steps_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_NORMALIZER_H_
