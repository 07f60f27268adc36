#include "data/make_checkpoint/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>
#include <utility>

#include "absl/strings/match.h"
#include "services/common/float16.h"
#include "services/common/hash.h"
#include "services/common/status_macros.h"
#include "services/engine/base/random.h"

namespace mechinterp::make_checkpoint {
namespace {

using engine::ByteSink;
using engine::NumberFormat;

constexpr int kTableSize = 1 << 16;      // indexed by 16 random bits
constexpr int kValuesPerWord = 64 / 16;  // table indices in one random word
constexpr int64_t kBlockValues = 2 << 20;

// A table of standard normal values. Each stands there with both signs, so that
// the mean is exactly zero.
const std::vector<float>& NormalTable() {
  static const auto& table = *new std::vector<float>([] {
    std::vector<float> values(kTableSize);
    for (int i = 0; i < kTableSize / 2; ++i) {
      values[i] = static_cast<float>(engine::RandomNormal(/*seed=*/0, /*stream=*/0, i));
      values[i + kTableSize / 2] = -values[i];
    }
    return values;
  }());
  return table;
}

// A tensor's values by place. Encoded is how a value lies in the file.
template <typename Encoded>
class Generator {
 public:
  template <typename Encode>
  Generator(uint64_t key, float mean, float deviation, Encode encode) : key_(key), table_(kTableSize) {
    std::transform(NormalTable().begin(), NormalTable().end(), table_.begin(),
                   [&](float normal) { return encode(mean + deviation * normal); });
  }

  // Values [begin, end) of the tensor; `begin` is a multiple of kValuesPerWord.
  std::vector<Encoded> Make(int64_t begin, int64_t end) const {
    std::vector<Encoded> values((end - begin + kValuesPerWord - 1) / kValuesPerWord * kValuesPerWord);
    uint64_t word = static_cast<uint64_t>(begin / kValuesPerWord);
    for (size_t i = 0; i < values.size(); i += kValuesPerWord, ++word) {
      const uint64_t bits = engine::Mix64(key_ ^ word);
      values[i] = table_[bits & 0xffff];
      values[i + 1] = table_[bits >> 16 & 0xffff];
      values[i + 2] = table_[bits >> 32 & 0xffff];
      values[i + 3] = table_[bits >> 48];
    }
    values.resize(end - begin);
    return values;
  }

 private:
  uint64_t key_;
  std::vector<Encoded> table_;
};

// The next block is made on a second thread while this one is being written.
template <typename Encoded>
absl::Status Stream(const Generator<Encoded>& generator, int64_t count, const ByteSink& sink) {
  const auto make = [&](int64_t begin) {
    return generator.Make(begin, std::min(begin + kBlockValues, count));
  };
  std::future<std::vector<Encoded>> next;
  if (count > 0) next = std::async(std::launch::async, make, 0);
  for (int64_t begin = 0; begin < count; begin += kBlockValues) {
    const std::vector<Encoded> block = next.get();
    if (begin + kBlockValues < count) next = std::async(std::launch::async, make, begin + kBlockValues);
    ABSTRACT_RETURN_IF_ERROR(sink(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(block.data()),
                                                      block.size() * sizeof(Encoded))));
  }
  return absl::OkStatus();
}

}  // namespace

engine::TensorSource RandomTensor(const std::string& name, const std::vector<int64_t>& shape,
                                  NumberFormat dtype, uint64_t seed) {
  const bool is_matrix = shape.size() > 1, is_bias = absl::EndsWith(name, ".bias");
  const float mean = is_matrix || is_bias ? 0.0f : 1.0f;
  const float deviation = !is_matrix ? 0.1f : 1.0f / std::sqrt(static_cast<float>(shape.back()));
  const uint64_t key = engine::Mix64(engine::Mix64(seed) ^ Fnv1a(name));
  const int64_t count = engine::ElementCount(shape);
  return {name, dtype, shape, [=](const ByteSink& sink) {
            if (dtype == NumberFormat::kFloat32) {
              return Stream(Generator<float>(key, mean, deviation, [](float value) { return value; }), count,
                            sink);
            }
            const auto encode = dtype == NumberFormat::kFloat16 ? FloatToFloat16 : FloatToBFloat16;
            return Stream(Generator<uint16_t>(key, mean, deviation, encode), count, sink);
          }};
}

}  // namespace mechinterp::make_checkpoint
