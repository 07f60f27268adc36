#include "services/common/tensor_bytes.h"

#include <libdeflate.h>

#include <bit>
#include <cstring>

#include "services/common/float16.h"

namespace mechinterp {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor bytes are copied as they lie");

template <typename Encode>
void EncodeHalves(absl::Span<const float> values, Encode encode, char* bytes) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = encode(values[i]);
    std::memcpy(bytes + i * sizeof(bits), &bits, sizeof(bits));
  }
}

template <typename Decode>
void DecodeHalves(absl::string_view bytes, Decode decode, float* values) {
  for (size_t i = 0; i < bytes.size() / sizeof(uint16_t); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + i * sizeof(bits), sizeof(bits));
    values[i] = decode(bits);
  }
}

}  // namespace

std::optional<size_t> ElementBytes(v1::DataType type) {
  switch (type) {
    case v1::DATA_TYPE_FLOAT32:
      return 4;
    case v1::DATA_TYPE_FLOAT16:
    case v1::DATA_TYPE_BFLOAT16:
      return 2;
    default:
      return std::nullopt;
  }
}

void EncodeValues(absl::Span<const float> values, v1::DataType type, char* bytes) {
  switch (type) {
    case v1::DATA_TYPE_FLOAT16:
      return EncodeHalves(values, FloatToFloat16, bytes);
    case v1::DATA_TYPE_BFLOAT16:
      return EncodeHalves(values, FloatToBFloat16, bytes);
    default:
      std::memcpy(bytes, values.data(), values.size() * sizeof(float));
  }
}

void DecodeValues(absl::string_view bytes, v1::DataType type, float* values) {
  switch (type) {
    case v1::DATA_TYPE_FLOAT16:
      return DecodeHalves(bytes, Float16ToFloat, values);
    case v1::DATA_TYPE_BFLOAT16:
      return DecodeHalves(bytes, BFloat16ToFloat, values);
    default:
      std::memcpy(values, bytes.data(), bytes.size());
  }
}

uint32_t Crc32(absl::string_view bytes) { return libdeflate_crc32(0, bytes.data(), bytes.size()); }

}  // namespace mechinterp
