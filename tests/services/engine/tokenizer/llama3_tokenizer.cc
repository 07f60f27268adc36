#include "tests/services/engine/tokenizer/llama3_tokenizer.h"

#include <cstdlib>

#include "tests/status_matchers.h"

namespace mechinterp::engine {

std::string Llama3TokenizerPath() {
  const char* from_environment = std::getenv("ABSTRACT_LLAMA3_TOKENIZER");
  return from_environment != nullptr ? from_environment : ABSTRACT_LLAMA3_TOKENIZER_DEFAULT;
}

void Llama3TokenizerTest::SetUp() {
  // Loaded once for all tests: it is 9 MB.
  static const auto tokenizer = Tokenizer::Load(Llama3TokenizerPath());
  ASSERT_THAT(tokenizer, IsOk())
      << "\nThis test needs the real Llama-3 tokenizer.json. ./tests/run.sh fetches it; "
         "without it, run tests/fetch_llama3_tokenizer.sh BUILD_DIR or name a copy of "
         "the file in the environment variable ABSTRACT_LLAMA3_TOKENIZER.";
  tokenizer_ = *tokenizer;
}

}  // namespace mechinterp::engine
