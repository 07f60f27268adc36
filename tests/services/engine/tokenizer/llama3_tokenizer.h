#ifndef TESTS_SERVICES_ENGINE_TOKENIZER_LLAMA3_TOKENIZER_H_
#define TESTS_SERVICES_ENGINE_TOKENIZER_LLAMA3_TOKENIZER_H_

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

// From the environment's ABSTRACT_LLAMA3_TOKENIZER, else where
// tests/fetch_llama3_tokenizer.sh puts it in this build's folder.
std::string Llama3TokenizerPath();

// Tests with the real Llama-3 tokenizer. They fail, and say how to get the file,
// where it is missing.
class Llama3TokenizerTest : public testing::Test {
 protected:
  void SetUp() override;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_TOKENIZER_LLAMA3_TOKENIZER_H_
