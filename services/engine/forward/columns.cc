#include "services/engine/forward/columns.h"

#include <algorithm>

namespace mechinterp::engine {

void GetColumns(const Rows& from, int64_t first, const Rows& to, Arithmetic& math) {
  math.WithHostRows(from, [&](const float* source) {
    math.WriteRows(to, [&](float* target) {
      for (int64_t i = 0; i < to.count; ++i) {
        std::copy_n(source + i * from.width + first, to.width, target + i * to.width);
      }
    });
    return false;
  });
}

void PutColumns(const Rows& from, const Rows& to, int64_t first, Arithmetic& math) {
  math.WithHostRows(from, [&](const float* source) {
    math.WithHostRows(to, [&](float* target) {
      for (int64_t i = 0; i < to.count; ++i) {
        std::copy_n(source + i * from.width, from.width, target + i * to.width + first);
      }
      return true;
    });
    return false;
  });
}

std::vector<float> RepeatForHeads(const Rows& rows, int64_t heads, Arithmetic& math) {
  std::vector<float> values(rows.size() * heads);
  math.WithHostRows(rows, [&](const float* source) {
    for (int64_t i = 0; i < rows.count * heads; ++i) {
      std::copy_n(source + i / heads * rows.width, rows.width, values.data() + i * rows.width);
    }
    return false;
  });
  return values;
}

void PutHead(const std::vector<float>& values, int64_t heads, int64_t head, const Rows& rows,
             Arithmetic& math) {
  math.WriteRows(rows, [&](float* target) {
    for (int64_t i = 0; i < rows.count; ++i) {
      std::copy_n(values.data() + (i * heads + head) * rows.width, rows.width, target + i * rows.width);
    }
  });
}

void GetHead(const Rows& rows, int64_t heads, int64_t head, std::vector<float>& values, Arithmetic& math) {
  math.WithHostRows(rows, [&](const float* source) {
    for (int64_t i = 0; i < rows.count; ++i) {
      std::copy_n(source + i * rows.width, rows.width, values.data() + (i * heads + head) * rows.width);
    }
    return false;
  });
}

}  // namespace mechinterp::engine
