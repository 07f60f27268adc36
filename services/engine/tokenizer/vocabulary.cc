#include "services/engine/tokenizer/vocabulary.h"

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/json_fields.h"

namespace mechinterp::engine {

absl::StatusOr<Vocabulary> Vocabulary::Create(const TokenizerSpec& spec, const Normalizer& normalizer) {
  Vocabulary vocabulary;
  vocabulary.ids_.reserve(spec.model.vocab.size() + spec.added_tokens.size());
  for (const auto& [text, id] : spec.model.vocab) {
    if (absl::Status status = vocabulary.AddModelToken(text, id); !status.ok()) return status;
  }
  for (const AddedToken& token : spec.added_tokens) {
    if (absl::Status status = vocabulary.AddAddedToken(token, normalizer); !status.ok()) return status;
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
    return absl::InvalidArgumentError(
        absl::StrCat("model.vocab: ", Quoted(text), " and ", Quoted(entry.text), " have the same id ", id));
  }
  entry = {text, /*used=*/true};
  ids_.emplace(text, id);
  return absl::OkStatus();
}

absl::Status Vocabulary::AddAddedToken(const AddedToken& token, const Normalizer& normalizer) {
  const auto [known, inserted] = ids_.try_emplace(token.content, token.id);
  Entry& entry = Slot(token.id);
  if (known->second != token.id) {
    return absl::InvalidArgumentError(absl::StrCat("added_tokens: ", Quoted(token.content), " has the id ",
                                                   token.id, " here and ", known->second, " elsewhere"));
  }
  if (inserted && entry.used) {
    return absl::InvalidArgumentError(absl::StrCat("added_tokens: ", Quoted(token.content), " has the id ",
                                                   token.id, " of the token ", Quoted(entry.text)));
  }
  entry = {token.content, /*used=*/true, /*added=*/true, entry.special || token.special};
  if (!token.normalized) return absl::OkStatus();
  std::string normalized = normalizer.Normalize(token.content);
  if (normalized != token.content) normalized_[token.id] = std::move(normalized);
  return absl::OkStatus();
}

std::optional<TokenId> Vocabulary::Find(std::string_view text) const {
  const auto it = ids_.find(AbslView(text));
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

const std::string* Vocabulary::Text(TokenId id) const {
  if (id < 0 || id >= size() || !entries_[static_cast<size_t>(id)].used) return nullptr;
  return &entries_[static_cast<size_t>(id)].text;
}

const std::string* Vocabulary::DecodedText(TokenId id) const {
  const auto it = normalized_.find(id);
  return it == normalized_.end() ? Text(id) : &it->second;
}

bool Vocabulary::IsAdded(TokenId id) const {
  return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].added;
}

bool Vocabulary::IsSpecial(TokenId id) const {
  return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].special;
}

}  // namespace mechinterp::engine
