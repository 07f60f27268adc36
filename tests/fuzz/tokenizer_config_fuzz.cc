// tokenizer_config.json, and what stands around a text by it.

#include <filesystem>

#include "services/engine/tokenizer/text_frame.h"
#include "services/engine/tokenizer/tokenizer_config.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/tiny_tokenizer.h"

ABSTRACT_FUZZ_TARGET(tokenizer_config) {
  using namespace mechinterp::engine;
  const std::string path = mechinterp::fuzz::ScratchFile("tokenizer_config.json", input);
  const auto config = LoadTokenizerConfig(std::filesystem::path(path).parent_path().string());
  if (!config.ok()) return mechinterp::fuzz::RequireRefusal(config.status(), path);
  const Tokenizer& tokenizer = *mechinterp::fuzz::TinyTokenizer();
  const auto frame = TextFrameOf(tokenizer, *config);
  if (!frame.ok()) return mechinterp::fuzz::RequireRefusal(frame.status(), "_token");
  for (const auto& ids : {frame->before, frame->after}) {
    for (const TokenId id : ids) {
      mechinterp::fuzz::Require(tokenizer.RawToken(id) != nullptr, "what stands around a text are tokens");
    }
  }
}
