#include "services/engine/tokenizer/bpe.h"

#include <cstddef>
#include <functional>
#include <optional>
#include <queue>
#include <tuple>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/byte_alphabet.h"

namespace mechinterp::engine {
namespace {

uint64_t PairKey(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

absl::StatusOr<TokenId> MergeToken(const Vocabulary& vocabulary, size_t rank, std::string_view token) {
  if (const auto id = vocabulary.Find(token)) return *id;
  return absl::InvalidArgumentError(
      absl::StrCat("model.merges[", rank, "]: \"", AbslView(token), "\" is not in model.vocab"));
}

}  // namespace

// A piece being merged: a doubly linked list of symbols, and a heap of the merges
// that were possible when they were noted.
class BytePairEncoder::Word {
 public:
  Word(const BytePairEncoder& encoder, std::string_view piece) : encoder_(encoder) {
    symbols_.reserve(piece.size());
    for (const char byte : piece) {
      const auto position = static_cast<int32_t>(symbols_.size());
      symbols_.push_back({encoder.ByteToken(static_cast<uint8_t>(byte)), position - 1, position + 1});
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
  static constexpr int32_t kNone = -1;
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

absl::StatusOr<BytePairEncoder> BytePairEncoder::Create(const TokenizerSpec& spec,
                                                        const Vocabulary& vocabulary) {
  BytePairEncoder encoder;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = BytesToAlphabet(std::string(1, static_cast<char>(byte)));
    const std::optional<TokenId> id = vocabulary.Find(text);
    if (!id.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("model.vocab: no token for the byte 0x%02X (\"%s\")", byte, text));
    }
    encoder.byte_tokens_[static_cast<size_t>(byte)] = *id;
  }

  encoder.merges_.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left_text, right_text] = spec.merges[rank];
    const absl::StatusOr<TokenId> left = MergeToken(vocabulary, rank, left_text);
    if (!left.ok()) return left.status();
    const absl::StatusOr<TokenId> right = MergeToken(vocabulary, rank, right_text);
    if (!right.ok()) return right.status();
    const absl::StatusOr<TokenId> result = MergeToken(vocabulary, rank, absl::StrCat(left_text, right_text));
    if (!result.ok()) return result.status();
    encoder.merges_.insert_or_assign(PairKey(*left, *right), Merge{static_cast<int32_t>(rank), *result});
  }

  if (spec.ignore_merges) {
    encoder.whole_pieces_.reserve(spec.vocab.size());
    for (const auto& [text, id] : spec.vocab) {
      // Left out, so that plain text never becomes a special token this way.
      if (vocabulary.IsSpecial(id)) continue;
      if (std::optional<std::string> bytes = AlphabetToBytes(text)) {
        encoder.whole_pieces_.emplace(*std::move(bytes), id);
      }
    }
  }
  return encoder;
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
  Word word(*this, piece);
  word.MergeAll();
  word.Append(ids);
}

}  // namespace mechinterp::engine
