#ifndef SERVICES_ENGINE_MODEL_H_
#define SERVICES_ENGINE_MODEL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/tokenizer/chat/chat_template_selection.h"
#include "services/engine/tokenizer/text_frame.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "services/engine/weights/load_options.h"

namespace mechinterp::engine {

struct ModelWeights;
struct WeightSelection;

// A loaded model: its shape, its weights, and its tokenizer if it has one.
// Immutable: safe from any thread.
class Model {
 public:
  // Loads a directory in Hugging Face layout. The tokenizer.json in it is
  // optional. Errors name the file and what is wrong with it.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& directory,
                                                           const LoadOptions& options = {});
  // Some of a model's layers as a model of their own, for the CPU, read again from its
  // checkpoint: a reference for what another device computes. In the same formats, without
  // a tokenizer.
  static absl::StatusOr<std::shared_ptr<const Model>> LoadPart(const Model& model,
                                                               const WeightSelection& selection);
  ~Model();

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return *weights_; }
  // Null when the checkpoint has none.
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  // What stands around a raw text.
  const TextFrame& text_frame() const { return text_frame_; }
  // Unset when chat prompts cannot be written for this model; then why.
  const std::optional<ChatTemplate>& chat_template() const { return chat_.chat_template; }
  const std::string& chat_refusal() const { return chat_.refusal; }

  const std::string& name() const { return name_; }
  // HashOfFiles (content_hash.h) of config.json, generation_config.json and the weights; of what
  // makes token ids of text, empty where there is none; and of these two, the chat template,
  // the stop tokens, the formats and the device: of all that answers depend on.
  const std::string& content_hash() const { return content_hash_; }
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }
  const std::string& serving_hash() const { return serving_hash_; }
  int64_t parameter_count() const { return parameter_count_; }
  const WeightFormats& formats() const { return formats_; }
  // Bytes of the weights in memory by how they are held. The embedding's rows are
  // read from the mapped file and not counted.
  const std::map<NumberFormat, int64_t>& weight_bytes() const { return weight_bytes_; }
  int64_t total_weight_bytes() const;

  const Device& device() const { return formats_.device; }
  // Runs our kernels for Apple's GPU; null: libtorch's operations do their work.
  metal::KernelRunner* kernel_runner() const { return kernel_runner_; }
  // What whoever loaded the model should be told: of its files (see Checkpoint::remarks), of
  // tokens that it cannot be asked about, of what stands around a text against expectation.
  const std::vector<std::string>& load_remarks() const { return load_remarks_; }
  // What users of the device should be told: why our kernels do not run, say.
  const std::string& device_remark() const { return device_remark_; }

 private:
  Model() = default;
  absl::Status LoadTokenizer(const std::string& directory, const LoadOptions& options);
  void StartKernels();

  ModelConfig config_;
  std::unique_ptr<ModelWeights> weights_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  TextFrame text_frame_;
  ChatTemplateChoice chat_;
  std::string name_;
  std::string content_hash_;
  std::string tokenizer_hash_;
  std::string serving_hash_;
  int64_t parameter_count_ = 0;
  WeightFormats formats_;
  metal::KernelRunner* kernel_runner_ = nullptr;
  std::vector<std::string> load_remarks_;
  std::string device_remark_;
  std::map<NumberFormat, int64_t> weight_bytes_;
};

// Version of the libtorch that is linked, "1.13.1".
std::string LibtorchVersion();

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_MODEL_H_
