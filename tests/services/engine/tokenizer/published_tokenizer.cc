#include "tests/services/engine/tokenizer/published_tokenizer.h"

#include <cstdlib>
#include <map>

#include "tests/status_matchers.h"

namespace mechinterp::engine {

std::string PublishedTokenizerPath(const std::string& name) {
  const char* from_environment = std::getenv("ABSTRACT_TOKENIZERS");
  const std::string folder = from_environment != nullptr ? from_environment : ABSTRACT_TOKENIZERS_DEFAULT;
  return folder + "/" + name + ".json";
}

std::shared_ptr<const Tokenizer> PublishedTokenizer(const std::string& name) {
  static auto& loaded = *new std::map<std::string, absl::StatusOr<std::shared_ptr<const Tokenizer>>>();
  const auto [entry, is_new] = loaded.try_emplace(name, nullptr);
  if (is_new) entry->second = Tokenizer::Load(PublishedTokenizerPath(name));
  EXPECT_THAT(entry->second, IsOk())
      << "\nThis test needs tokenizers of published models. ./tests/run.sh fetches them; "
         "without it, run tests/fetch_tokenizers.sh BUILD_DIR or name a folder with "
         "them in the environment variable ABSTRACT_TOKENIZERS.";
  return entry->second.ok() ? *entry->second : nullptr;
}

void Llama3TokenizerTest::SetUp() {
  tokenizer_ = PublishedTokenizer("llama3");
  ASSERT_NE(tokenizer_, nullptr);
}

}  // namespace mechinterp::engine
