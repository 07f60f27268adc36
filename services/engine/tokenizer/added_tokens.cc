#include "services/engine/tokenizer/added_tokens.h"

#include <algorithm>
#include <string>

#include "services/engine/tokenizer/unicode.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

bool IsWord(const Utf8Unit& unit) {
  return unit.kind == Utf8Unit::kCharacter && IsWordCharacter(unit.code_point);
}

// Neither the text before nor the one after continues a word.
bool StandsAlone(std::string_view before, std::string_view after) {
  return (before.empty() || !IsWord(ReadLastUtf8Unit(before))) &&
         (after.empty() || !IsWord(ReadUtf8Unit(after)));
}

}  // namespace

void AddedTokenSplitter::Trie::Insert(std::string_view text, size_t token) {
  uint32_t node = 0;
  for (const char byte : text) {
    const uint64_t edge = static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
    const auto [child, inserted] = children_.try_emplace(edge, node_count_);
    if (inserted) ++node_count_;
    node = child->second;
  }
  ends_[node] = {text.size(), token};
}

AddedTokenSplitter::Trie::Match AddedTokenSplitter::Trie::LongestMatch(std::string_view text) const {
  Match longest;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto child = children_.find(static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte));
    if (child == children_.end()) break;
    node = child->second;
    if (const auto end = ends_.find(node); end != ends_.end()) longest = end->second;
  }
  return longest;
}

AddedTokenSplitter::AddedTokenSplitter(const std::vector<AddedToken>& tokens, const Normalizer& normalizer)
    : tokens_(tokens) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].normalized) {
      normalized_.Insert(normalizer.Normalize(tokens_[i].content), i);
    } else {
      raw_.Insert(tokens_[i].content, i);
    }
  }
}

std::vector<TextSegment> AddedTokenSplitter::SplitBy(const Trie& trie, std::string_view text,
                                                     SpecialTokens special,
                                                     absl::Span<const TokenId> also_plain) const {
  const auto stays_text = [&](const AddedToken& token) {
    return special == SpecialTokens::kAsPlainText &&
           (token.special || std::find(also_plain.begin(), also_plain.end(), token.id) != also_plain.end());
  };
  std::vector<TextSegment> segments;
  size_t done = 0;
  size_t position = trie.empty() ? text.size() : 0;
  while (position < text.size()) {
    const Trie::Match match = trie.LongestMatch(text.substr(position));
    if (match.length == 0) {
      ++position;
      continue;
    }
    const AddedToken& token = tokens_[match.token];
    size_t start = position;
    size_t end = position + match.length;
    position = end;
    if (stays_text(token)) continue;
    if (token.single_word && !StandsAlone(text.substr(0, start), text.substr(end))) continue;
    if (token.lstrip && start > done) start -= TrailingWhiteSpace(text.substr(done, start - done));
    if (token.rstrip) end += LeadingWhiteSpace(text.substr(end));
    if (done < start) segments.push_back({text.substr(done, start - done), std::nullopt});
    segments.push_back({text.substr(start, end - start), token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done), std::nullopt});
  return segments;
}

std::vector<TextSegment> AddedTokenSplitter::SplitRaw(std::string_view text, SpecialTokens special,
                                                      absl::Span<const TokenId> also_plain) const {
  return SplitBy(raw_, text, special, also_plain);
}

std::vector<TextSegment> AddedTokenSplitter::SplitNormalized(std::string_view text, SpecialTokens special,
                                                             absl::Span<const TokenId> also_plain) const {
  return SplitBy(normalized_, text, special, also_plain);
}

}  // namespace mechinterp::engine
