#include "services/engine/checkpoint/nf4.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/float16.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/engine/kernels/quantize.h"

namespace mechinterp::engine {
namespace {

constexpr char kStateSuffix[] = ".quant_state.bitsandbytes__nf4";
constexpr const char* kPartSuffixes[] = {".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map",
                                         kStateSuffix};

// The parts of one quantized matrix.
class Parts {
 public:
  Parts(const Checkpoint& checkpoint, const std::string& name) : checkpoint_(checkpoint), name_(name) {}

  absl::Status Bad(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint_.directory(), ": NF4 tensor '", name_, "': ", what));
  }

  absl::StatusOr<TensorView> Find(const std::string& suffix) const {
    const TensorView* view = checkpoint_.Find(name_ + suffix);
    if (view == nullptr) return Bad(absl::StrCat("part '", suffix, "' is missing"));
    return *view;
  }

  // A part of `count` bytes, whatever the type that they are stored under.
  absl::StatusOr<absl::Span<const uint8_t>> Bytes(const std::string& suffix, int64_t count) const {
    ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, Find(suffix));
    if (static_cast<int64_t>(view.bytes.size()) != count) {
      return Bad(absl::StrCat("part '", suffix, "' must hold ", count, " bytes, holds ", view.bytes.size()));
    }
    return absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(view.bytes.data()), view.bytes.size());
  }

  // A part of `count` numbers in a floating-point type.
  absl::StatusOr<std::vector<float>> Floats(const std::string& suffix, int64_t count) const {
    ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, Find(suffix));
    absl::StatusOr<HostTensor> tensor = ToHostTensor(view);
    if (!tensor.ok() || tensor->size() != count) {
      return Bad(absl::StrCat("part '", suffix, "' must hold ", count, " F32, F16 or BF16, holds ",
                              ElementCount(view.shape), " ", DTypeName(view.dtype)));
    }
    return std::move(tensor->values);
  }

  absl::StatusOr<nlohmann::json> State() const {
    const TensorView* view = checkpoint_.Find(name_ + kStateSuffix);
    if (view == nullptr) return Bad("its quant_state is missing");
    constexpr size_t kMaxBytes = 64 << 10;  // real ones have some 200
    if (view->bytes.size() > kMaxBytes) return Bad("its quant_state is longer than can be right");
    const std::string text(reinterpret_cast<const char*>(view->bytes.data()), view->bytes.size());
    absl::StatusOr<nlohmann::json> state = ParseJsonObject(text, "");
    if (!state.ok()) return Bad(absl::StrCat("its quant_state", state.status().message()));
    return state;
  }

 private:
  const Checkpoint& checkpoint_;
  const std::string& name_;
};

absl::Status ReadAbsmax(const Parts& parts, const nlohmann::json& state, int64_t blocks, Nf4Matrix& matrix) {
  if (!state.contains("nested_blocksize")) {
    ABSTRACT_ASSIGN_OR_RETURN(matrix.absmax, parts.Floats(".absmax", blocks));
  } else {
    if (!state["nested_blocksize"].is_number_unsigned() || state["nested_blocksize"] < 1 ||
        !state.contains("nested_offset") || !state["nested_offset"].is_number()) {
      return parts.Bad("its quant_state lacks a sane nested_blocksize or nested_offset");
    }
    const auto nested_block = state["nested_blocksize"].get<int64_t>();
    const auto offset = state["nested_offset"].get<float>();
    ABSTRACT_ASSIGN_OR_RETURN(const absl::Span<const uint8_t> codes, parts.Bytes(".absmax", blocks));
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<float> map, parts.Floats(".nested_quant_map", 256));
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<float> scales,
                              parts.Floats(".nested_absmax", (blocks + nested_block - 1) / nested_block));
    matrix.absmax.resize(blocks);
    for (int64_t i = 0; i < blocks; ++i) {
      matrix.absmax[i] = map[codes[i]] * scales[i / nested_block] + offset;
    }
  }
  const bool finite =
      std::all_of(matrix.absmax.begin(), matrix.absmax.end(), [](float x) { return std::isfinite(x); });
  return finite ? absl::OkStatus() : parts.Bad("holds a scale that is not finite");
}

std::optional<NumberFormat> StoredType(const nlohmann::json& state) {
  const nlohmann::json name = state.contains("dtype") ? state["dtype"] : nlohmann::json("float32");
  for (const NumberFormatInfo& info : AllNumberFormats()) {
    if (info.is_compute_type() && name == std::string(info.name)) return info.format;
  }
  return std::nullopt;
}

// From larger blocks to blocks of 64 with the same scales.
void Subdivide(int64_t block, int64_t count, Nf4Matrix& matrix) {
  std::vector<float> absmax((count + kernels::kNf4Block - 1) / kernels::kNf4Block);
  for (size_t i = 0; i < absmax.size(); ++i) absmax[i] = matrix.absmax[i * kernels::kNf4Block / block];
  matrix.absmax = std::move(absmax);
}

}  // namespace

std::string Nf4StateName(const std::string& name) { return name + kStateSuffix; }

std::vector<std::string> Nf4PartNames(const std::string& name) {
  std::vector<std::string> names;
  for (const char* suffix : kPartSuffixes) names.push_back(name + suffix);
  return names;
}

bool IsNf4(const Checkpoint& checkpoint, const std::string& name) {
  return checkpoint.Has(Nf4StateName(name));
}

NumberFormat Nf4StoredType(const Checkpoint& checkpoint, const std::string& name) {
  const absl::StatusOr<nlohmann::json> state = Parts(checkpoint, name).State();
  return state.ok() ? StoredType(*state).value_or(NumberFormat::kFloat32) : NumberFormat::kFloat32;
}

absl::StatusOr<Nf4Matrix> ReadNf4(const Checkpoint& checkpoint, const std::string& name,
                                  absl::Span<const int64_t> shape) {
  const Parts parts(checkpoint, name);
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json state, parts.State());
  Nf4Matrix matrix;
  matrix.shape.assign(shape.begin(), shape.end());
  if (!state.contains("shape") || state["shape"] != nlohmann::json(matrix.shape)) {
    return parts.Bad(absl::StrCat("its quant_state's shape is not [", absl::StrJoin(shape, ", "), "]"));
  }
  if (!state.contains("blocksize") || !state["blocksize"].is_number_unsigned() || state["blocksize"] < 1) {
    return parts.Bad("its quant_state lacks a sane blocksize");
  }
  const auto block = state["blocksize"].get<int64_t>();
  if (block % kernels::kNf4Block != 0) {
    return parts.Bad(absl::StrCat("blocksize ", block, " is not supported; multiples of 64 are"));
  }
  const std::optional<NumberFormat> dtype = StoredType(state);
  if (!dtype) return parts.Bad("its quant_state's dtype is none of float32, float16 and bfloat16");
  matrix.dtype = *dtype;
  const int64_t count = ElementCount(matrix.shape);
  ABSTRACT_ASSIGN_OR_RETURN(matrix.codes, parts.Bytes("", (count + 1) / 2));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<float> code, parts.Floats(".quant_map", 16));
  if (!std::all_of(code.begin(), code.end(), [](float value) { return std::isfinite(value); })) {
    return parts.Bad("its .quant_map holds a value that is not finite");
  }
  std::copy(code.begin(), code.end(), matrix.code.begin());
  ABSTRACT_RETURN_IF_ERROR(ReadAbsmax(parts, state, (count + block - 1) / block, matrix));
  if (block != kernels::kNf4Block) Subdivide(block, count, matrix);
  return matrix;
}

HostTensor Dequantize(const Nf4Matrix& matrix) {
  HostTensor tensor{matrix.shape, std::vector<float>(ElementCount(matrix.shape))};
  for (int64_t i = 0; i < tensor.size(); ++i) {
    const uint8_t byte = matrix.codes[i / 2];
    const float value =
        matrix.code[i % 2 == 0 ? byte >> 4 : byte & 15] * matrix.absmax[i / kernels::kNf4Block];
    tensor.values[i] = RoundTo(matrix.dtype, value);
  }
  return tensor;
}

}  // namespace mechinterp::engine
