#include "services/engine/tokenizer/added_tokens.h"

#include <algorithm>

namespace mechinterp::engine {

void AddedTokenSplitter::Trie::Insert(const AddedToken& token) {
  uint32_t node = 0;
  for (const char byte : token.content) {
    const uint64_t edge = static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
    const auto [child, inserted] = children_.try_emplace(edge, node_count_);
    if (inserted) ++node_count_;
    node = child->second;
  }
  ends_[node] = {token.content.size(), token.id, token.special};
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

AddedTokenSplitter::AddedTokenSplitter(const std::vector<AddedToken>& tokens) {
  for (const AddedToken& token : tokens) (token.normalized ? normalized_ : raw_).Insert(token);
}

void AddedTokenSplitter::SplitBy(const Trie& trie, std::string_view text, SpecialTokens special,
                                 absl::Span<const TokenId> also_plain, std::vector<TextSegment>* segments) {
  size_t plain_start = 0;
  size_t position = trie.empty() ? text.size() : 0;
  while (position < text.size()) {
    const Trie::Match match = trie.LongestMatch(text.substr(position));
    if (match.length == 0) {
      ++position;
      continue;
    }
    const bool keep_as_text =
        special == SpecialTokens::kAsPlainText &&
        (match.special || std::find(also_plain.begin(), also_plain.end(), match.id) != also_plain.end());
    if (!keep_as_text) {
      if (position > plain_start) {
        segments->push_back({text.substr(plain_start, position - plain_start), std::nullopt});
      }
      segments->push_back({text.substr(position, match.length), match.id});
      plain_start = position + match.length;
    }
    position += match.length;
  }
  if (plain_start < text.size()) segments->push_back({text.substr(plain_start), std::nullopt});
}

std::vector<TextSegment> AddedTokenSplitter::Split(std::string_view text, SpecialTokens special,
                                                   absl::Span<const TokenId> also_plain) const {
  std::vector<TextSegment> raw;
  SplitBy(raw_, text, special, also_plain, &raw);
  if (normalized_.empty()) return raw;
  std::vector<TextSegment> segments;
  for (const TextSegment& segment : raw) {
    if (segment.added_token.has_value()) {
      segments.push_back(segment);
    } else {
      SplitBy(normalized_, segment.text, special, also_plain, &segments);
    }
  }
  return segments;
}

}  // namespace mechinterp::engine
