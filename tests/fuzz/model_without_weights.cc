// Stands in for services/engine/model.cc where there is no libtorch: what requests are read by,
// a model's configuration and its tokenizer, without its weights.

#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/model.h"
#include "services/engine/tokenizer/tokenizer_config.h"

namespace mechinterp::engine {

struct ModelWeights {};

Model::~Model() = default;

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& directory,
                                                         const LoadOptions& options) {
  std::shared_ptr<Model> model(new Model());
  const std::string config = directory + "/config.json";
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(config));
  ABSTRACT_ASSIGN_OR_RETURN(model->config_, ParseModelConfig(text, config));
  ABSTRACT_ASSIGN_OR_RETURN(model->tokenizer_, Tokenizer::Load(directory + "/tokenizer.json"));
  ABSTRACT_ASSIGN_OR_RETURN(const TokenizerConfig settings, LoadTokenizerConfig(directory));
  ABSTRACT_ASSIGN_OR_RETURN(model->text_frame_, TextFrameOf(*model->tokenizer_, settings));
  ABSTRACT_ASSIGN_OR_RETURN(model->chat_,
                            SelectChatTemplate(options.chat_template, *model->tokenizer_, settings));
  return std::shared_ptr<const Model>(std::move(model));
}

}  // namespace mechinterp::engine
