#ifndef SERVICES_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
#define SERVICES_ENGINE_TOKENIZER_PRE_TOKENIZER_H_

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/text_pattern.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// What a text was cut into. The views are of the text, or of `storage`.
struct TextPieces {
  std::vector<std::string_view> views;
  std::deque<std::string> storage;
  // The first piece begins what is being encoded.
  bool at_start = false;
};

// Cuts normalized text into the pieces within which tokens are merged.
// Immutable: safe from any thread.
class PreTokenizer {
 public:
  // Errors: those of TextPattern::Compile.
  static absl::StatusOr<PreTokenizer> Create(const std::vector<PreTokenizerStep>& steps);

  // `text` may be malformed UTF-8 and must outlive the pieces. `at_start`: nothing
  // stood before it in what is being encoded.
  TextPieces Split(std::string_view text, bool at_start) const;

 private:
  struct CompiledSplit {
    TextPattern pattern;
    SplitBehavior behavior;
    bool invert;
  };
  using Step = std::variant<CompiledSplit, Metaspace, PrefixSpace>;

  explicit PreTokenizer(std::vector<Step> steps) : steps_(std::move(steps)) {}
  static void Apply(const CompiledSplit& split, TextPieces* pieces);
  static void Apply(const Metaspace& metaspace, TextPieces* pieces);
  static void Apply(const PrefixSpace& prefix, TextPieces* pieces);

  std::vector<Step> steps_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
