#include "services/model/engine/model.h"

#include <torch/version.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/model/engine/checkpoint.h"
#include "services/model/engine/tokenizer/chat_template_selection.h"
#include "services/model/engine/tokenizer/tokenizer_config.h"
#include "services/model/engine/weights.h"

namespace mechinterp::engine {

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& directory,
                                                         const LoadOptions& options) {
  ABSTRACT_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(directory));
  std::shared_ptr<Model> model(new Model());
  model->config_ = checkpoint.config();
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
    ABSTRACT_ASSIGN_OR_RETURN(model->chat_template_,
                              SelectChatTemplate(options.chat_format, *model->tokenizer_, tokenizer_config));
    // The end of a turn stops a chat model, whatever config.json says of it.
    if (auto end_of_turn = model->chat_template_.end_of_turn) model->config_.AddStopToken(*end_of_turn);
  } else if (options.chat_format.value_or(ChatFormat::kNone) != ChatFormat::kNone) {
    return absl::FailedPreconditionError(
        absl::StrCat(tokenizer_path, ": is missing, so there is no chat template"));
  }

  ABSTRACT_ASSIGN_OR_RETURN(ModelWeights weights, LoadWeights(checkpoint, options));
  model->weights_ = std::make_unique<ModelWeights>(std::move(weights));
  model->parameter_count_ = CountParameters(*model->weights_);
  model->weight_bytes_ = model->parameter_count_ * static_cast<int64_t>(sizeof(float));
  return model;
}

Model::~Model() = default;

std::string LibtorchVersion() { return TORCH_VERSION; }

}  // namespace mechinterp::engine
