#ifndef CLIENTS_LIB_SELECTORS_H_
#define CLIENTS_LIB_SELECTORS_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "mechinterp/v1/hook.pb.h"

namespace mechinterp {

// How positions and indices are written on a command line. InvalidArgument,
// naming the part at fault, for anything else.

// Comma-separated: an index (3, -1 from the end), a half-open range (0:5, -6:,
// :4), or a name: last, last-instruction, tail (the template's end), decision
// (last-instruction and tail). "all" or nothing: an empty selector.
absl::StatusOr<v1::PositionSelector> ParsePositions(std::string_view text);

// "0,2,5:8" is 0 2 5 6 7.
absl::StatusOr<std::vector<uint32_t>> ParseIndices(std::string_view text);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_SELECTORS_H_
