#ifndef SERVICES_ENGINE_TOKENIZER_STAGE_PARSING_H_
#define SERVICES_ENGINE_TOKENIZER_STAGE_PARSING_H_

#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// The stages of a tokenizer.json around its model: each function reads one into
// its part of the spec. Errors as ReadTokenizerSpec's.
absl::Status ReadNormalizer(const nlohmann::json& root, TokenizerSpec* spec);
// Sets `model.byte_level` too.
absl::Status ReadPreTokenizer(const nlohmann::json& root, TokenizerSpec* spec);
absl::Status ReadDecoder(const nlohmann::json& root, TokenizerSpec* spec);
absl::Status ReadPostProcessor(const nlohmann::json& root, TokenizerSpec* spec);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_STAGE_PARSING_H_
