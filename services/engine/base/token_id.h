#ifndef SERVICES_ENGINE_BASE_TOKEN_ID_H_
#define SERVICES_ENGINE_BASE_TOKEN_ID_H_

#include <cstdint>

namespace mechinterp::engine {

// Index of a token in a model's vocabulary: [0, V).
using TokenId = int32_t;

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_BASE_TOKEN_ID_H_
