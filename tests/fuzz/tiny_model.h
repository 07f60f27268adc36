#ifndef TESTS_FUZZ_TINY_MODEL_H_
#define TESTS_FUZZ_TINY_MODEL_H_

#include <memory>

#include "services/engine/model.h"

namespace mechinterp::fuzz {

// Two layers of two heads and eight dimensions, the tiny tokenizer, a chat template, a context
// of 64 tokens. Made once.
const std::shared_ptr<const engine::Model>& TinyModel();

}  // namespace mechinterp::fuzz

#endif  // TESTS_FUZZ_TINY_MODEL_H_
