#ifndef SERVICES_COMMON_TENSOR_BYTES_H_
#define SERVICES_COMMON_TENSOR_BYTES_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "mechinterp/v1/tensor.pb.h"

namespace mechinterp {

// Values as they travel: little-endian elements of a data type. Thread-safe, as all here.

// Of one element; nothing for what is no type of elements.
std::optional<size_t> ElementBytes(v1::DataType type);

// Writes the values to `bytes`, which has room for so many elements of a type that has
// ElementBytes: rounded to nearest even where that is narrower than theirs; what is beyond its
// range becomes infinity.
void EncodeValues(absl::Span<const float> values, v1::DataType type, char* bytes);

// The reverse, to `values`, which has room for all elements of `bytes`: whole ones, of a type that
// has ElementBytes.
void DecodeValues(absl::string_view bytes, v1::DataType type, float* values);

// The sum that goes with a chunk: CRC-32 of IEEE 802.3, as zlib's crc32 and Go's crc32.IEEE.
uint32_t Crc32(absl::string_view bytes);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_TENSOR_BYTES_H_
