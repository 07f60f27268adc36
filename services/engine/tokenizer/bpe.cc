#include "services/engine/tokenizer/bpe.h"

#include <cstddef>
#include <functional>
#include <optional>
#include <queue>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/byte_alphabet.h"
#include "services/engine/tokenizer/json_fields.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

uint64_t PairKey(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

// A character or byte without a token is held back until the next one with a
// token, since neighbours may become one unknown token.
class BytePairEncoder::Start {
 public:
  Start(const BytePairEncoder& encoder, size_t size) : encoder_(encoder) { symbols_.reserve(size); }

  void Add(TokenId id) {
    AddUnknown();
    symbols_.push_back(id);
  }
  // The bytes' tokens, if there is one for each.
  bool AddBytes(std::string_view bytes) {
    for (const char byte : bytes) {
      if (encoder_.byte_tokens_[static_cast<uint8_t>(byte)] == kNone) return false;
    }
    for (const char byte : bytes) symbols_.push_back(encoder_.byte_tokens_[static_cast<uint8_t>(byte)]);
    return true;
  }
  void NoteUnknown() {
    if (!encoder_.fuse_unknown_) AddUnknown();
    unknown_ = encoder_.unknown_ != kNone;
  }
  std::vector<TokenId> Finish() && {
    AddUnknown();
    return std::move(symbols_);
  }

 private:
  void AddUnknown() {
    if (std::exchange(unknown_, false)) symbols_.push_back(encoder_.unknown_);
  }

  const BytePairEncoder& encoder_;
  std::vector<TokenId> symbols_;
  bool unknown_ = false;
};

// A piece being merged: a doubly linked list of symbols, and a heap of the merges
// that were possible when they were noted.
class BytePairEncoder::Word {
 public:
  Word(const BytePairEncoder& encoder, const std::vector<TokenId>& start) : encoder_(encoder) {
    symbols_.reserve(start.size());
    for (const TokenId id : start) {
      const auto position = static_cast<int32_t>(symbols_.size());
      symbols_.push_back({id, position - 1, position + 1});
    }
    symbols_.back().next = kNone;
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) NoteMerge(static_cast<int32_t>(i));
  }

  void MergeAll() {
    while (!candidates_.empty()) {
      const Candidate candidate = candidates_.top();
      candidates_.pop();
      Symbol& left = symbols_[candidate.position];
      if (left.id == kNone || left.next == kNone) continue;
      // The pair may have changed since the candidate was noted. Comparing the
      // result and not the rank is what Hugging Face does; it matters when two
      // pairs make the same token.
      const Merge* merge = encoder_.FindMerge(left.id, symbols_[left.next].id);
      if (merge == nullptr || merge->result != candidate.result) continue;
      Symbol& right = symbols_[left.next];
      left.id = merge->result;
      left.next = right.next;
      right.id = kNone;
      if (left.next != kNone) symbols_[left.next].previous = candidate.position;
      if (left.previous != kNone) NoteMerge(left.previous);
      if (left.next != kNone) NoteMerge(candidate.position);
    }
  }

  void Append(std::vector<TokenId>* ids) const {
    for (int32_t i = 0; i != kNone; i = symbols_[i].next) ids->push_back(symbols_[i].id);
  }

 private:
  struct Symbol {
    TokenId id;  // kNone once merged into the symbol before it
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    int32_t rank;
    int32_t position;  // of the left symbol
    TokenId result;
    bool operator>(const Candidate& other) const {
      return std::tie(rank, position) > std::tie(other.rank, other.position);
    }
  };

  void NoteMerge(int32_t position) {
    const Symbol& left = symbols_[position];
    if (const Merge* merge = encoder_.FindMerge(left.id, symbols_[left.next].id)) {
      candidates_.push({merge->rank, position, merge->result});
    }
  }

  const BytePairEncoder& encoder_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates_;
};

absl::StatusOr<BytePairEncoder> BytePairEncoder::Create(const BpeModel& model,
                                                        const absl::flat_hash_set<TokenId>& special) {
  BytePairEncoder encoder;
  encoder.byte_level_ = model.byte_level;
  encoder.fuse_unknown_ = model.fuse_unk;
  ModelIds ids;
  ids.reserve(model.vocab.size());
  for (const auto& [text, id] : model.vocab) ids.emplace(text, id);
  if (!model.unk_token.empty()) {
    const auto unknown = ids.find(model.unk_token);
    if (unknown == ids.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.unk_token: ", Quoted(model.unk_token), " is not in model.vocab"));
    }
    encoder.unknown_ = unknown->second;
  }
  encoder.SetBytes(model, ids);
  ABSTRACT_RETURN_IF_ERROR(encoder.SetMerges(model, ids));
  if (model.ignore_merges) encoder.SetWholePieces(model, special);
  return encoder;
}

void BytePairEncoder::SetBytes(const BpeModel& model, const ModelIds& ids) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = model.byte_level ? BytesToAlphabet(std::string(1, static_cast<char>(byte)))
                                              : absl::StrFormat("<0x%02X>", byte);
    const auto found = model.byte_level || model.byte_fallback ? ids.find(text) : ids.end();
    byte_tokens_[static_cast<size_t>(byte)] = found == ids.end() ? kNone : found->second;
  }
  if (model.byte_level) return;
  for (const auto& [text, id] : model.vocab) {
    if (!text.empty() && ReadUtf8Unit(text).length == text.size()) characters_.emplace(text, id);
  }
}

absl::Status BytePairEncoder::SetMerges(const BpeModel& model, const ModelIds& ids) {
  merges_.reserve(model.merges.size());
  for (size_t rank = 0; rank < model.merges.size(); ++rank) {
    const auto& [left, right] = model.merges[rank];
    const std::string result = left + right;
    for (const std::string* token : {&left, &right, &result}) {
      if (ids.contains(*token)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("model.merges[", rank, "]: ", Quoted(*token), " is not in model.vocab"));
    }
    merges_.insert_or_assign(PairKey(ids.at(left), ids.at(right)),
                             Merge{static_cast<int32_t>(rank), ids.at(result)});
  }
  return absl::OkStatus();
}

void BytePairEncoder::SetWholePieces(const BpeModel& model, const absl::flat_hash_set<TokenId>& special) {
  whole_pieces_.reserve(model.vocab.size());
  for (const auto& [text, id] : model.vocab) {
    // Left out, so that plain text never becomes a special token this way.
    if (special.contains(id)) continue;
    std::optional<std::string> piece = model.byte_level ? AlphabetToBytes(text) : text;
    if (piece.has_value()) whole_pieces_.emplace(*std::move(piece), id);
  }
}

std::vector<TokenId> BytePairEncoder::StartingSymbols(std::string_view piece) const {
  Start start(*this, piece.size());
  while (!piece.empty()) {
    const size_t length = byte_level_ ? 1 : ReadUtf8Unit(piece).length;
    const std::string_view character = piece.substr(0, length);
    piece.remove_prefix(length);
    if (byte_level_) {
      const TokenId id = byte_tokens_[static_cast<uint8_t>(character[0])];
      if (id == kNone) {
        start.NoteUnknown();
      } else {
        start.Add(id);
      }
    } else if (const auto it = characters_.find(AbslView(character)); it != characters_.end()) {
      start.Add(it->second);
    } else if (!start.AddBytes(character)) {
      start.NoteUnknown();
    }
  }
  return std::move(start).Finish();
}

const BytePairEncoder::Merge* BytePairEncoder::FindMerge(TokenId left, TokenId right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void BytePairEncoder::Encode(std::string_view piece, std::vector<TokenId>* ids) const {
  if (piece.empty()) return;
  if (const auto it = whole_pieces_.find(AbslView(piece)); it != whole_pieces_.end()) {
    ids->push_back(it->second);
    return;
  }
  const std::vector<TokenId> start = StartingSymbols(piece);
  if (start.empty()) return;
  Word word(*this, start);
  word.MergeAll();
  word.Append(ids);
}

}  // namespace mechinterp::engine
