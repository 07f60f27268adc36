#include "services/engine/tokenizer/vocabulary.h"

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/byte_alphabet.h"

namespace mechinterp::engine {

absl::StatusOr<Vocabulary> Vocabulary::Create(const TokenizerSpec& spec) {
  Vocabulary vocabulary;
  vocabulary.ids_.reserve(spec.vocab.size() + spec.added_tokens.size());
  for (const auto& [text, id] : spec.vocab) {
    if (absl::Status status = vocabulary.AddModelToken(text, id); !status.ok()) return status;
  }
  for (const AddedToken& token : spec.added_tokens) {
    if (absl::Status status = vocabulary.AddAddedToken(token); !status.ok()) return status;
  }
  return vocabulary;
}

Vocabulary::Entry& Vocabulary::Slot(TokenId id) {
  const auto index = static_cast<size_t>(id);
  if (index >= entries_.size()) entries_.resize(index + 1);
  return entries_[index];
}

absl::Status Vocabulary::AddModelToken(const std::string& text, TokenId id) {
  Entry& entry = Slot(id);
  if (entry.used) {
    return absl::InvalidArgumentError(absl::StrCat("model.vocab: \"", text, "\" and \"",
                                                   BytesToAlphabet(entry.bytes), "\" have the same id ", id));
  }
  // A text outside the alphabet stands for itself, as in Hugging Face's decoder;
  // vocabularies that list their special tokens have such texts.
  entry = {AlphabetToBytes(text).value_or(text), true, false, false};
  ids_.emplace(text, id);
  return absl::OkStatus();
}

absl::Status Vocabulary::AddAddedToken(const AddedToken& token) {
  const auto [known, inserted] = ids_.try_emplace(token.content, token.id);
  Entry& entry = Slot(token.id);
  if (known->second != token.id) {
    return absl::InvalidArgumentError(absl::StrCat("added_tokens: \"", token.content, "\" has the id ",
                                                   token.id, " here and ", known->second, " elsewhere"));
  }
  if (inserted && entry.used) {
    return absl::InvalidArgumentError(absl::StrCat("added_tokens: \"", token.content, "\" has the id ",
                                                   token.id, " of the token \"", BytesToAlphabet(entry.bytes),
                                                   "\""));
  }
  // An added token is matched in raw text, so its content is its bytes.
  entry = {token.content, true, entry.special || token.special, true};
  return absl::OkStatus();
}

std::optional<TokenId> Vocabulary::Find(std::string_view text) const {
  const auto it = ids_.find(AbslView(text));
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

std::string_view Vocabulary::Bytes(TokenId id) const {
  if (id < 0 || id >= size()) return {};
  return entries_[static_cast<size_t>(id)].bytes;
}

bool Vocabulary::IsSpecial(TokenId id) const {
  return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].special;
}

bool Vocabulary::IsAdded(TokenId id) const {
  return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].added;
}

}  // namespace mechinterp::engine
