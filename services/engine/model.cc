#include "services/engine/model.h"

#include <torch/version.h>

#include <exception>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/checkpoint.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "services/engine/metal/metal_runner.h"
#include "services/engine/tokenizer/tokenizer_config.h"
#include "services/engine/weights/pass_scratch.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {
namespace {

int64_t Total(const WeightBytes& bytes) {
  int64_t total = 0;
  for (const auto& [format, count] : bytes) total += count;
  return total;
}

absl::Status CheckMemoryLimit(const Checkpoint& checkpoint, const WeightFormats& formats,
                              const LoadOptions& options) {
  const int64_t weights = Total(EstimateWeightBytes(checkpoint, formats));
  const int64_t scratch = ScratchBytes(checkpoint.config(), options.scratch_rows);
  if (options.memory_limit_bytes == 0 || weights + scratch <= options.memory_limit_bytes) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat(checkpoint.directory(), ": the weights would take ", weights >> 20,
                   " MiB of memory and forward passes ", scratch >> 20, " MiB, the limit is ",
                   options.memory_limit_bytes >> 20, " MiB",
                   formats.quantization == kUnquantized ? "; quantization nf4 takes a fraction of it" : ""));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& directory,
                                                         const LoadOptions& options) {
  ABSTRACT_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(directory));
  std::shared_ptr<Model> model(new Model());
  model->config_ = checkpoint.config();
  model->kernel_runner_ = options.kernel_runner;
  model->name_ = options.name.empty() ? checkpoint.name() : options.name;
  model->fingerprint_ = checkpoint.Fingerprint();

  const std::string tokenizer_path = (std::filesystem::path(directory) / "tokenizer.json").string();
  if (std::filesystem::exists(tokenizer_path)) {
    ABSTRACT_ASSIGN_OR_RETURN(model->tokenizer_, Tokenizer::Load(tokenizer_path));
    if (model->tokenizer_->vocab_size() > model->config_.vocabulary_size) {
      return absl::InvalidArgumentError(
          absl::StrCat(tokenizer_path, ": has ", model->tokenizer_->vocab_size(), " tokens, the model only ",
                       model->config_.vocabulary_size));
    }
    ABSTRACT_ASSIGN_OR_RETURN(const TokenizerConfig tokenizer_config, LoadTokenizerConfig(directory));
    ABSTRACT_ASSIGN_OR_RETURN(
        model->chat_, SelectChatTemplate(options.chat_template, *model->tokenizer_, tokenizer_config));
    // The end of a turn stops a chat model, whatever config.json says of it.
    if (model->chat_template() && model->chat_template()->end_of_turn) {
      model->config_.AddStopToken(*model->chat_template()->end_of_turn);
    }
  } else if (options.chat_template != "auto" && options.chat_template != "none") {
    return absl::FailedPreconditionError(
        absl::StrCat(tokenizer_path, ": is missing, so there is no chat template"));
  }

  model->formats_ = ResolveFormats(options, StoredAsNf4(checkpoint));
  model->StartKernels();
  model->parameter_count_ = CountParameters(model->config_);
  ABSTRACT_RETURN_IF_ERROR(CheckMemoryLimit(checkpoint, model->formats_, options));
  try {
    ABSTRACT_ASSIGN_OR_RETURN(ModelWeights weights, LoadWeights(std::move(checkpoint), model->formats_,
                                                                options.round_rope_frequencies_to_bfloat16));
    model->weights_ = std::make_unique<ModelWeights>(std::move(weights));
  } catch (const std::exception& error) {  // c10::Error and std::bad_alloc
    return absl::ResourceExhaustedError(absl::StrCat(directory, ": loading the weights: ", error.what()));
  }
  model->weight_bytes_ = CountWeightBytes(*model->weights_);
  TrimDeviceCache(model->device());
  return model;
}

// Our kernels for Apple's GPU, where there is one and weights that they multiply.
void Model::StartKernels() {
  const bool quantized = formats_.quantization == NumberFormat::kNf4 || formats_.head != kUnquantized;
  if (formats_.device.kind != DeviceKind::kMps || kernel_runner_ != nullptr || !quantized) return;
  if (absl::StatusOr<metal::KernelRunner*> runner = metal::StartMetalRunner(); runner.ok()) {
    kernel_runner_ = *runner;
  } else {
    device_remark_ =
        absl::StrCat(runner.status().message(), "; quantized products go through dequantized panels, slower");
  }
}

absl::StatusOr<std::shared_ptr<const Model>> Model::LoadPart(const Model& model,
                                                             const WeightSelection& selection) {
  std::shared_ptr<Model> part(new Model());
  part->config_ = model.config();
  part->config_.layers.clear();
  for (int layer : selection.layers) part->config_.layers.push_back(model.config().layers[layer]);
  part->name_ = model.name();
  part->fingerprint_ = model.fingerprint();
  part->formats_ = model.formats();
  part->formats_.device = {};
  try {
    ABSTRACT_ASSIGN_OR_RETURN(ModelWeights weights,
                              ReloadWeights(model.weights(), model.formats(), selection));
    part->weights_ = std::make_unique<ModelWeights>(std::move(weights));
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat(model.name(), ": loading weights again: ", error.what()));
  }
  return std::shared_ptr<const Model>(std::move(part));
}

int64_t Model::total_weight_bytes() const { return Total(weight_bytes_); }

Model::~Model() = default;

std::string LibtorchVersion() { return TORCH_VERSION; }

}  // namespace mechinterp::engine
