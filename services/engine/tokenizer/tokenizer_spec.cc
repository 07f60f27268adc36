#include "services/engine/tokenizer/tokenizer_spec.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/json_fields.h"
#include "services/engine/tokenizer/stage_parsing.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

absl::Status ReadVocab(const json& model, BpeModel* bpe) {
  const json& vocab = Member(model, "vocab");
  if (!vocab.is_object()) return Malformed("model.vocab", "an object of tokens and ids");
  bpe->vocab.reserve(vocab.size());
  for (const auto& [text, value] : vocab.items()) {
    const std::optional<TokenId> id = ReadId(value);
    if (!id.has_value()) return MalformedId(absl::StrCat("model.vocab[", Quoted(text), "]"));
    bpe->vocab.emplace_back(text, *id);
  }
  return absl::OkStatus();
}

// Either "left right" or, in newer files, ["left", "right"].
absl::Status ReadMerges(const json& model, BpeModel* bpe) {
  const json& merges = Member(model, "merges");
  if (!merges.is_array()) return Malformed("model.merges", "an array");
  bpe->merges.reserve(merges.size());
  for (const json& merge : merges) {
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space != std::string::npos && space > 0 && space + 1 < text.size() && space == text.rfind(' ')) {
        bpe->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      bpe->merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    return Malformed(absl::StrCat("model.merges[", bpe->merges.size(), "]"),
                     "two tokens, as \"a b\" or [\"a\", \"b\"]");
  }
  return absl::OkStatus();
}

// What changes the algorithm, and nothing published for these models has.
absl::Status CheckModelVariant(const json& model) {
  // Files from before `type` was written are all BPE when they have merges.
  const json& type = Member(model, "type");
  if (!type.is_null() && type != "BPE") return Unsupported("model.type", type, "\"BPE\"");
  if (const json& dropout = Member(model, "dropout"); !dropout.is_null() && dropout != 0.0) {
    return Unsupported("model.dropout", dropout, "null");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& affix = Member(model, key);
    if (!affix.is_null() && affix != "") return Unsupported(absl::StrCat("model.", key), affix, "null");
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const json& root, BpeModel* bpe) {
  const json& model = Member(root, "model");
  if (!model.is_object()) return Malformed("model", "an object");
  ABSTRACT_RETURN_IF_ERROR(CheckModelVariant(model));
  ABSTRACT_ASSIGN_OR_RETURN(bpe->byte_fallback, ReadBool(model, "model", "byte_fallback", false));
  ABSTRACT_ASSIGN_OR_RETURN(bpe->fuse_unk, ReadBool(model, "model", "fuse_unk", false));
  ABSTRACT_ASSIGN_OR_RETURN(bpe->ignore_merges, ReadBool(model, "model", "ignore_merges", false));
  if (!Member(model, "unk_token").is_null()) {
    ABSTRACT_ASSIGN_OR_RETURN(bpe->unk_token, ReadString(model, "model", "unk_token"));
  }
  ABSTRACT_RETURN_IF_ERROR(ReadVocab(model, bpe));
  return ReadMerges(model, bpe);
}

absl::StatusOr<AddedToken> ReadAddedToken(const json& token, const std::string& path) {
  if (!token.is_object()) return Malformed(path, "an object");
  AddedToken result;
  const json& content = Member(token, "content");
  if (!content.is_string() || content.get_ref<const std::string&>().empty()) {
    return Malformed(path + ".content", "a text that is not empty");
  }
  result.content = content.get<std::string>();
  const std::optional<TokenId> id = ReadId(Member(token, "id"));
  if (!id.has_value()) return MalformedId(path + ".id");
  result.id = *id;
  ABSTRACT_ASSIGN_OR_RETURN(result.special, ReadBool(token, path, "special", false));
  ABSTRACT_ASSIGN_OR_RETURN(result.normalized, ReadBool(token, path, "normalized", !result.special));
  ABSTRACT_ASSIGN_OR_RETURN(result.single_word, ReadBool(token, path, "single_word", false));
  ABSTRACT_ASSIGN_OR_RETURN(result.lstrip, ReadBool(token, path, "lstrip", false));
  ABSTRACT_ASSIGN_OR_RETURN(result.rstrip, ReadBool(token, path, "rstrip", false));
  return result;
}

absl::Status ReadAddedTokens(const json& root, TokenizerSpec* spec) {
  const json& tokens = Member(root, "added_tokens");
  if (tokens.is_null()) return absl::OkStatus();
  if (!tokens.is_array()) return Malformed("added_tokens", "an array");
  for (size_t i = 0; i < tokens.size(); ++i) {
    ABSTRACT_ASSIGN_OR_RETURN(AddedToken token,
                              ReadAddedToken(tokens[i], absl::StrCat("added_tokens[", i, "]")));
    spec->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const json& root) {
  TokenizerSpec spec;
  ABSTRACT_RETURN_IF_ERROR(ReadModel(root, &spec.model));
  ABSTRACT_RETURN_IF_ERROR(ReadAddedTokens(root, &spec));
  ABSTRACT_RETURN_IF_ERROR(ReadNormalizer(root, &spec));
  ABSTRACT_RETURN_IF_ERROR(ReadPreTokenizer(root, &spec));
  ABSTRACT_RETURN_IF_ERROR(ReadDecoder(root, &spec));
  ABSTRACT_RETURN_IF_ERROR(ReadPostProcessor(root, &spec));
  return spec;
}

}  // namespace mechinterp::engine
