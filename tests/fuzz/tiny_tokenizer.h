#ifndef TESTS_FUZZ_TINY_TOKENIZER_H_
#define TESTS_FUZZ_TINY_TOKENIZER_H_

#include <memory>
#include <string>

#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::fuzz {

// Byte-level, with a token for each byte and the added tokens <s>, </s>, <|user|>, <|bot|> and
// <|end|>, of which the last two are not special. Made once.
const std::shared_ptr<const engine::Tokenizer>& TinyTokenizer();
// Its file.
std::string TinyTokenizerJson();

}  // namespace mechinterp::fuzz

#endif  // TESTS_FUZZ_TINY_TOKENIZER_H_
