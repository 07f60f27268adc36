#include "services/engine/model.h"

#include <torch/version.h>

#include <exception>
#include <filesystem>
#include <future>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/checkpoint.h"
#include "services/engine/checkpoint/content_hash.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "services/engine/metal/metal_runner.h"
#include "services/engine/tokenizer/chat/chat_formats.h"
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

// The files of a directory that make token ids of text.
std::vector<std::string> TokenizerFiles(const std::filesystem::path& directory) {
  std::vector<std::string> paths;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    std::error_code error;
    if (std::filesystem::exists(directory / name, error)) paths.push_back((directory / name).string());
  }
  return paths;
}

std::string NameOf(Quantization quantization) {
  return quantization ? std::string(InfoOf(*quantization).name) : "none";
}

std::string ServingHash(const Model& model, const LoadOptions& options) {
  const WeightFormats& formats = model.formats();
  Sha256 hash;
  const auto add = [&](absl::string_view what, const auto& value) {
    hash.Add(absl::StrCat(what, " ", value, "\n"));
  };
  add("model", model.content_hash());
  add("tokenizer", model.tokenizer_hash());
  add("chat template", model.chat_template() ? ChatFormatJson(model.chat_template()->format) : "none");
  add("stop tokens", absl::StrJoin(model.config().stop_token_ids, ","));
  add("quantization", NameOf(formats.quantization));
  add("quantization as stored", formats.quantization_as_stored);
  add("dequantize nf4", formats.dequantize_nf4);
  add("double quantization", formats.double_quantization);
  add("head quantization", NameOf(formats.head));
  add("compute type", std::string(InfoOf(formats.compute_type).name));
  add("rope frequencies in bfloat16", options.round_rope_frequencies_to_bfloat16);
  add("device", std::string(DeviceKindName(formats.device.kind)));
  return hash.Hex();
}

// Special tokens that were added to a tokenizer and never to its model, a <pad> mostly, do no
// harm as long as nobody asks for them; what to say of them. Other tokens that the model does
// not have mean that the tokenizer is another model's.
absl::StatusOr<std::string> CheckVocabulary(const Tokenizer& tokenizer, int vocabulary_size,
                                            const std::string& path) {
  const int tokens = tokenizer.vocab_size();
  if (tokens <= vocabulary_size) return std::string();
  for (TokenId id = vocabulary_size; id < tokens; ++id) {
    const TokenId ids[] = {id};
    if (tokenizer.IsSpecial(id) || tokenizer.DecodeBytes(ids).empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(path, ": has ", tokens, " tokens, the model only ",
                                                   vocabulary_size,
                                                   "; of those past its embedding only "
                                                   "special tokens may be left unused"));
  }
  return absl::StrCat(path, ": its special tokens from id ", vocabulary_size, " on, such as '",
                      tokenizer.Decode({tokens - 1}),
                      "', are past the model's embedding: prompts "
                      "that hold them are refused");
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& directory,
                                                         const LoadOptions& options) {
  ABSTRACT_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(directory));
  std::shared_ptr<Model> model(new Model());
  model->config_ = checkpoint.config();
  model->kernel_runner_ = options.kernel_runner;
  model->name_ = options.name.empty() ? checkpoint.name() : options.name;
  model->load_remarks_ = checkpoint.remarks();
  ABSTRACT_RETURN_IF_ERROR(model->LoadTokenizer(directory, options));
  model->formats_ = ResolveFormats(options, FindStoredNf4(checkpoint));
  model->StartKernels();
  model->parameter_count_ = CountParameters(model->config_);
  ABSTRACT_RETURN_IF_ERROR(CheckMemoryLimit(checkpoint, model->formats_, options));
  // Beside the loading, which leaves the disk and a core idle now and then.
  auto content_hash =
      std::async(std::launch::async, HashOfFiles, checkpoint.files(), options.hash_cache_path);
  try {
    ABSTRACT_ASSIGN_OR_RETURN(ModelWeights weights, LoadWeights(std::move(checkpoint), model->formats_,
                                                                options.round_rope_frequencies_to_bfloat16));
    model->weights_ = std::make_unique<ModelWeights>(std::move(weights));
  } catch (const std::exception& error) {  // c10::Error and std::bad_alloc
    return absl::ResourceExhaustedError(absl::StrCat(directory, ": loading the weights: ", error.what()));
  }
  model->weight_bytes_ = CountWeightBytes(*model->weights_);
  ABSTRACT_ASSIGN_OR_RETURN(model->content_hash_, content_hash.get());
  if (const std::vector<std::string> files = TokenizerFiles(directory); !files.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(model->tokenizer_hash_, HashOfFiles(files, options.hash_cache_path));
  }
  model->serving_hash_ = ServingHash(*model, options);
  TrimDeviceCache(model->device());
  return model;
}

absl::Status Model::LoadTokenizer(const std::string& directory, const LoadOptions& options) {
  const std::string path = (std::filesystem::path(directory) / "tokenizer.json").string();
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_tokenizer, FileExists(path));
  if (!has_tokenizer) {
    if (options.chat_template == "auto" || options.chat_template == "none") return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(path, ": is missing, so there is no chat template"));
  }
  ABSTRACT_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::Load(path));
  ABSTRACT_ASSIGN_OR_RETURN(const std::string remark,
                            CheckVocabulary(*tokenizer_, config_.vocabulary_size, path));
  if (!remark.empty()) load_remarks_.push_back(remark);
  ABSTRACT_ASSIGN_OR_RETURN(const TokenizerConfig tokenizer_config, LoadTokenizerConfig(directory));
  absl::StatusOr<TextFrame> frame = TextFrameOf(*tokenizer_, tokenizer_config);
  const std::string config_path = (std::filesystem::path(directory) / "tokenizer_config.json").string();
  if (!frame.ok())
    return absl::Status(frame.status().code(), absl::StrCat(config_path, ": ", frame.status().message()));
  text_frame_ = *std::move(frame);
  if (!text_frame_.remark.empty())
    load_remarks_.push_back(absl::StrCat(config_path, ": ", text_frame_.remark));
  ABSTRACT_ASSIGN_OR_RETURN(chat_, SelectChatTemplate(options.chat_template, *tokenizer_, tokenizer_config));
  // The end of a turn stops a chat model, whatever config.json says of it.
  if (chat_template() && chat_template()->end_of_turn) config_.AddStopToken(*chat_template()->end_of_turn);
  return absl::OkStatus();
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
  part->content_hash_ = model.content_hash();
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
