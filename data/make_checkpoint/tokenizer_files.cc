#include "data/make_checkpoint/tokenizer_files.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::make_checkpoint {
namespace {

constexpr const char* kStopTokens[] = {"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"};

void UseSpecialTokens(const engine::Tokenizer& tokenizer, engine::ModelConfig& shape) {
  shape.begin_token_id = tokenizer.TokenToId("<|begin_of_text|>");
  shape.stop_token_ids.clear();
  for (const char* token : kStopTokens) {
    if (const std::optional<engine::TokenId> id = tokenizer.TokenToId(token)) {
      shape.stop_token_ids.push_back(*id);
    }
  }
}

}  // namespace

absl::Status AddTokenizer(const std::string& directory, engine::ModelConfig& shape,
                          engine::CheckpointFiles& files) {
  const std::string path = directory + "/tokenizer.json";
  ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::Tokenizer> tokenizer,
                            engine::Tokenizer::Load(path));
  if (tokenizer->vocab_size() > shape.vocabulary_size) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has ", tokenizer->vocab_size(),
                                                   " tokens, more than the vocabulary of ",
                                                   shape.vocabulary_size));
  }
  UseSpecialTokens(*tokenizer, shape);
  ABSTRACT_ASSIGN_OR_RETURN(files["tokenizer.json"], ReadTextFile(path));
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    absl::StatusOr<std::string> text = ReadTextFile(absl::StrCat(directory, "/", name));
    if (absl::IsNotFound(text.status())) continue;
    ABSTRACT_ASSIGN_OR_RETURN(files[name], std::move(text));
  }
  return absl::OkStatus();
}

}  // namespace mechinterp::make_checkpoint
