#include "services/engine/weights/save_quantized.h"

#include <filesystem>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/checkpoint.h"
#include "services/engine/checkpoint/checkpoint_writer.h"
#include "services/engine/checkpoint/nf4.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "services/engine/kernels/quantize.h"
#include "services/engine/weights/nf4_quantize.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The quant_state's JSON is padded to this, since its size must be known before
// its contents are.
constexpr size_t kStateBytes = 320;

template <typename T>
absl::Span<const std::byte> Bytes(const T& values) {
  return {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(values[0])};
}

// Quantizes one matrix when the first of its parts is written, and keeps it for the
// others.
class QuantizedParts {
 public:
  QuantizedParts(std::string name, const TensorView& view, bool double_quantization)
      : name_(std::move(name)), view_(view), double_quantization_(double_quantization) {}

  // Null after an error, which Make has returned.
  absl::StatusOr<const Nf4Matrix*> Make() {
    if (!matrix_) {
      absl::StatusOr<Nf4Matrix> matrix = QuantizeToNf4(view_, double_quantization_);
      if (!matrix.ok()) {
        return absl::Status(matrix.status().code(),
                            absl::StrCat("tensor '", name_, "' ", matrix.status().message()));
      }
      matrix_ = std::make_unique<Nf4Matrix>(*std::move(matrix));
      ReleasePages(view_);
    }
    return matrix_.get();
  }
  void Drop() { matrix_.reset(); }

 private:
  std::string name_;
  TensorView view_;
  bool double_quantization_;
  std::unique_ptr<Nf4Matrix> matrix_;
};

std::string QuantState(const Nf4Matrix& matrix) {
  json state = {{"quant_type", "nf4"},
                {"blocksize", kernels::kNf4Block},
                {"dtype", std::string(InfoOf(matrix.dtype).name)},
                {"shape", matrix.shape}};
  if (matrix.nested) {
    state["nested_blocksize"] = kNestedBlock;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = matrix.nested->offset;
  }
  std::string text = state.dump();
  text.resize(kStateBytes, ' ');
  return text;
}

// A matrix's parts, in the order in which they are to be written.
void AddQuantized(const std::string& name, const TensorView& view, bool double_quantization,
                  std::vector<TensorSource>& sources) {
  const auto parts = std::make_shared<QuantizedParts>(name, view, double_quantization);
  auto add = [&](const std::string& suffix, NumberFormat dtype, std::vector<int64_t> shape, auto bytes_of) {
    sources.push_back(
        {name + suffix, dtype, std::move(shape), [parts, bytes_of](const ByteSink& sink) -> absl::Status {
           ABSTRACT_ASSIGN_OR_RETURN(const Nf4Matrix* matrix, parts->Make());
           return bytes_of(*matrix, sink);
         }});
  };
  const int64_t count = ElementCount(view.shape);
  const int64_t blocks = (count + kernels::kNf4Block - 1) / kernels::kNf4Block;
  add("", NumberFormat::kUint8, {(count + 1) / 2, 1},
      [](const Nf4Matrix& matrix, const ByteSink& sink) { return sink(Bytes(matrix.codes)); });
  if (double_quantization) {
    add(".absmax", NumberFormat::kUint8, {blocks},
        [](const Nf4Matrix& matrix, const ByteSink& sink) { return sink(Bytes(matrix.nested->codes)); });
    add(".nested_absmax", NumberFormat::kFloat32, {(blocks + kNestedBlock - 1) / kNestedBlock},
        [](const Nf4Matrix& matrix, const ByteSink& sink) { return sink(Bytes(matrix.nested->absmax)); });
    add(".nested_quant_map", NumberFormat::kFloat32, {256},
        [](const Nf4Matrix&, const ByteSink& sink) { return sink(Bytes(DynamicMap())); });
  } else {
    add(".absmax", NumberFormat::kFloat32, {blocks},
        [](const Nf4Matrix& matrix, const ByteSink& sink) { return sink(Bytes(matrix.absmax)); });
  }
  add(".quant_map", NumberFormat::kFloat32, {16},
      [](const Nf4Matrix& matrix, const ByteSink& sink) { return sink(Bytes(matrix.code)); });
  add(".quant_state.bitsandbytes__nf4", NumberFormat::kUint8, {static_cast<int64_t>(kStateBytes)},
      [parts](const Nf4Matrix& matrix, const ByteSink& sink) {
        const absl::Status status = sink(Bytes(QuantState(matrix)));
        parts->Drop();  // the last part
        return status;
      });
}

TensorSource Copy(const std::string& name, const TensorView& view) {
  return {name, view.dtype, view.shape, [view](const ByteSink& sink) {
            const absl::Status status = sink(view.bytes);
            ReleasePages(view);
            return status;
          }};
}

absl::StatusOr<std::vector<TensorSource>> Sources(const Checkpoint& checkpoint, bool double_quantization) {
  std::set<std::string> to_quantize;
  for (const TensorInfo& tensor : ModelTensors(checkpoint.config())) {
    if (tensor.kind != TensorKind::kLinear || IsNf4(checkpoint, tensor.name)) continue;
    ABSTRACT_RETURN_IF_ERROR(checkpoint.Tensor(tensor.name, tensor.shape).status());
    to_quantize.insert(tensor.name);
  }
  std::vector<TensorSource> sources;
  for (const auto& [name, view] : checkpoint.tensors()) {
    if (to_quantize.count(name) > 0) {
      AddQuantized(name, view, double_quantization, sources);
    } else {
      sources.push_back(Copy(name, view));
    }
  }
  return sources;
}

// config.json with what transformers writes into it for such a checkpoint.
std::string QuantizedConfig(const std::string& config_text, bool double_quantization) {
  json config = json::parse(config_text);
  config["quantization_config"] = {{"quant_method", "bitsandbytes"},
                                   {"load_in_4bit", true},
                                   {"load_in_8bit", false},
                                   {"bnb_4bit_quant_type", "nf4"},
                                   {"bnb_4bit_use_double_quant", double_quantization},
                                   {"bnb_4bit_compute_dtype", "bfloat16"},
                                   {"bnb_4bit_quant_storage", "uint8"}};
  return config.dump(2) + "\n";
}

}  // namespace

absl::Status SaveQuantized(const std::string& directory, const std::string& new_directory,
                           bool double_quantization) {
  ABSTRACT_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(directory));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TensorSource> sources,
                            Sources(checkpoint, double_quantization));
  CheckpointFiles files;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "generation_config.json", "chat_template.jinja"}) {
    absl::StatusOr<std::string> text = ReadTextFile((fs::path(directory) / name).string());
    if (absl::IsNotFound(text.status())) continue;
    ABSTRACT_ASSIGN_OR_RETURN(files[name], std::move(text));
  }
  files["config.json"] = QuantizedConfig(checkpoint.config_text(), double_quantization);
  return WriteCheckpoint(new_directory, sources, files);
}

}  // namespace mechinterp::engine
