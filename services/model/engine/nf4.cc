#include "services/model/engine/nf4.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/float16.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

constexpr char kStateSuffix[] = ".quant_state.bitsandbytes__nf4";

// The parts of one quantized matrix.
class Parts {
 public:
  Parts(const Checkpoint& checkpoint, const std::string& name) : checkpoint_(checkpoint), name_(name) {}

  absl::Status Bad(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint_.directory(), ": NF4 tensor '", name_, "': ", what));
  }

  // A part of `count` elements of the given type.
  absl::StatusOr<TensorView> Find(const std::string& suffix, DType dtype, int64_t count) const {
    const TensorView* view = checkpoint_.Find(name_ + suffix);
    if (view == nullptr) return Bad(absl::StrCat("part '", suffix, "' is missing"));
    if (view->dtype != dtype || ElementCount(view->shape) != count) {
      return Bad(absl::StrCat("part '", suffix, "' must hold ", count, " ", DTypeName(dtype), ", holds ",
                              ElementCount(view->shape), " ", DTypeName(view->dtype)));
    }
    return *view;
  }

  absl::StatusOr<std::vector<float>> Floats(const std::string& suffix, int64_t count) const {
    ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, Find(suffix, DType::kF32, count));
    ABSTRACT_ASSIGN_OR_RETURN(HostTensor tensor, ToHostTensor(view));
    return std::move(tensor.values);
  }

  absl::StatusOr<nlohmann::json> State() const {
    const TensorView* view = checkpoint_.Find(name_ + kStateSuffix);
    if (view == nullptr) return Bad("its quant_state is missing");
    const auto* text = reinterpret_cast<const char*>(view->bytes.data());
    nlohmann::json state = nlohmann::json::parse(text, text + view->bytes.size(), nullptr, false);
    if (!state.is_object()) return Bad("its quant_state is not a JSON object");
    return state;
  }

 private:
  const Checkpoint& checkpoint_;
  const std::string& name_;
};

// Largest absolute value of each block.
absl::StatusOr<std::vector<float>> ReadAbsmax(const Parts& parts, const nlohmann::json& state,
                                              int64_t blocks) {
  if (!state.contains("nested_blocksize")) return parts.Floats(".absmax", blocks);
  if (!state["nested_blocksize"].is_number_unsigned() || state["nested_blocksize"] < 1 ||
      !state.contains("nested_offset") || !state["nested_offset"].is_number()) {
    return parts.Bad("its quant_state lacks a sane nested_blocksize or nested_offset");
  }
  const auto nested_block = state["nested_blocksize"].get<int64_t>();
  const auto offset = state["nested_offset"].get<float>();
  ABSTRACT_ASSIGN_OR_RETURN(const TensorView codes, parts.Find(".absmax", DType::kU8, blocks));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<float> map, parts.Floats(".nested_quant_map", 256));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<float> scales,
                            parts.Floats(".nested_absmax", (blocks + nested_block - 1) / nested_block));
  std::vector<float> absmax(blocks);
  for (int64_t i = 0; i < blocks; ++i) {
    absmax[i] = map[static_cast<uint8_t>(codes.bytes[i])] * scales[i / nested_block] + offset;
  }
  return absmax;
}

}  // namespace

bool IsNf4(const Checkpoint& checkpoint, const std::string& name) {
  return checkpoint.Has(name + kStateSuffix);
}

absl::StatusOr<HostTensor> DequantizeNf4(const Checkpoint& checkpoint, const std::string& name,
                                         absl::Span<const int64_t> shape) {
  const Parts parts(checkpoint, name);
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json state, parts.State());
  HostTensor tensor{{shape.begin(), shape.end()}, {}};
  if (!state.contains("shape") || state["shape"] != nlohmann::json(tensor.shape)) {
    return parts.Bad(absl::StrCat("its quant_state's shape is not [", absl::StrJoin(shape, ", "), "]"));
  }
  if (!state.contains("blocksize") || !state["blocksize"].is_number_unsigned() || state["blocksize"] < 1) {
    return parts.Bad("its quant_state lacks a sane blocksize");
  }
  const auto block = state["blocksize"].get<int64_t>();
  const int64_t count = ElementCount(tensor.shape);
  ABSTRACT_ASSIGN_OR_RETURN(const TensorView packed, parts.Find("", DType::kU8, (count + 1) / 2));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<float> code, parts.Floats(".quant_map", 16));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<float> absmax,
                            ReadAbsmax(parts, state, (count + block - 1) / block));

  const nlohmann::json dtype = state.contains("dtype") ? state["dtype"] : nlohmann::json("float32");
  const bool to_bfloat16 = dtype == "bfloat16", to_float16 = dtype == "float16";
  tensor.values.resize(count);
  for (int64_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(packed.bytes[i / 2]);
    float value = code[i % 2 == 0 ? byte >> 4 : byte & 15] * absmax[i / block];
    if (to_bfloat16) value = BFloat16ToFloat(FloatToBFloat16(value));
    if (to_float16) value = Float16ToFloat(FloatToFloat16(value));
    tensor.values[i] = value;
  }
  return tensor;
}

}  // namespace mechinterp::engine
