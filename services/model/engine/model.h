#ifndef SERVICES_MODEL_ENGINE_MODEL_H_
#define SERVICES_MODEL_ENGINE_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "services/model/engine/model_config.h"
#include "services/model/engine/tokenizer/chat_template.h"
#include "services/model/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

struct ModelWeights;

struct LoadOptions {
  // Round the rotary frequencies to bfloat16, as a reference model does whose
  // buffers were cast along with its weights (`model.to(bfloat16)`). Off: fp32,
  // which is how published checkpoints are meant to be run.
  bool round_rope_frequencies_to_bfloat16 = false;
  // What clients call the model; empty: the directory's name.
  std::string name;
  // Unset: what the checkpoint itself says; see SelectChatTemplate.
  std::optional<ChatFormat> chat_format;
};

// A loaded model: its shape, its weights, and its tokenizer if it has one.
// Immutable: safe from any thread.
class Model {
 public:
  // Loads a directory in Hugging Face layout. The tokenizer.json in it is
  // optional. Errors name the file and what is wrong with it.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& directory,
                                                           const LoadOptions& options = {});
  ~Model();

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return *weights_; }
  // Null when the checkpoint has none.
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  // Of format kNone when chat prompts cannot be written for this model.
  const ChatTemplate& chat_template() const { return chat_template_; }
  bool has_chat_template() const { return chat_template_.format != ChatFormat::kNone; }

  const std::string& name() const { return name_; }
  // See Checkpoint::Fingerprint.
  const std::string& fingerprint() const { return fingerprint_; }
  int64_t parameter_count() const { return parameter_count_; }
  int64_t weight_bytes() const { return weight_bytes_; }

 private:
  Model() = default;

  ModelConfig config_;
  std::unique_ptr<ModelWeights> weights_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  ChatTemplate chat_template_;
  std::string name_;
  std::string fingerprint_;
  int64_t parameter_count_ = 0;
  int64_t weight_bytes_ = 0;
};

// Version of the libtorch that is linked, "1.13.1".
std::string LibtorchVersion();

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_MODEL_H_
