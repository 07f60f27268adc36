#ifndef TESTS_SERVICES_ENGINE_TOKENIZER_PUBLISHED_TOKENIZER_H_
#define TESTS_SERVICES_ENGINE_TOKENIZER_PUBLISHED_TOKENIZER_H_

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

// Of a published model ("llama3"): NAME.json in the folder that the environment's
// ABSTRACT_TOKENIZERS names, else where tests/fetch_tokenizers.sh puts it in this
// build's folder.
std::string PublishedTokenizerPath(const std::string& name);

// Loaded once for all tests: some are 9 MB. Fails the test, and says how to get the
// file, where it is missing; then null.
std::shared_ptr<const Tokenizer> PublishedTokenizer(const std::string& name);

// Tests with the real Llama-3 tokenizer.
class Llama3TokenizerTest : public testing::Test {
 protected:
  void SetUp() override;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_TOKENIZER_PUBLISHED_TOKENIZER_H_
