#ifndef SERVICES_ENGINE_FORWARD_COLUMNS_H_
#define SERVICES_ENGINE_FORWARD_COLUMNS_H_

#include <cstdint>
#include <vector>

#include "services/engine/forward/arithmetic.h"

namespace mechinterp::engine {

// Single heads' parts of rows, and rows of single heads, by way of the host: for what is done
// head by head because somebody has a hook there.

// Columns [first, first + count) of each row of `from`, to `to` [rows, count]; and back.
void GetColumns(const Rows& from, int64_t first, const Rows& to, Arithmetic& math);
void PutColumns(const Rows& from, const Rows& to, int64_t first, Arithmetic& math);

// Each row of `rows` [T, D] once for each head: [T, heads, D].
std::vector<float> RepeatForHeads(const Rows& rows, int64_t heads, Arithmetic& math);
// One head's rows of values [T, heads, D], to `rows` [T, D]; and back.
void PutHead(const std::vector<float>& values, int64_t heads, int64_t head, const Rows& rows,
             Arithmetic& math);
void GetHead(const Rows& rows, int64_t heads, int64_t head, std::vector<float>& values, Arithmetic& math);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_COLUMNS_H_
