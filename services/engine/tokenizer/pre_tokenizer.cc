#include "services/engine/tokenizer/pre_tokenizer.h"

#include <cstddef>

#include "absl/strings/str_replace.h"
#include "services/common/overloaded.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

using Part = TextPattern::Part;

// Of two neighbouring views of one text.
std::string_view Join(std::string_view left, std::string_view right) {
  return {left.data(), left.size() + right.size()};
}

// Whether the part at `index` becomes one piece with the one before it.
bool JoinsPrevious(const std::vector<Part>& parts, size_t index, SplitBehavior behavior) {
  if (index == 0) return false;
  const bool is_match = parts[index].is_match;
  const bool previous_is_match = parts[index - 1].is_match;
  switch (behavior) {
    case SplitBehavior::kContiguous:
      return is_match == previous_is_match;
    case SplitBehavior::kMergedWithPrevious:
      return is_match && !previous_is_match;
    case SplitBehavior::kMergedWithNext:
      return previous_is_match && !is_match;
    case SplitBehavior::kRemoved:
    case SplitBehavior::kIsolated:
      return false;
  }
  return false;
}

void AppendPieces(const std::vector<Part>& parts, SplitBehavior behavior,
                  std::vector<std::string_view>* pieces) {
  std::string_view piece;
  const auto end_piece = [&](std::string_view next) {
    if (!piece.empty()) pieces->push_back(piece);
    piece = next;
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    if (JoinsPrevious(parts, i, behavior)) {
      piece = Join(piece, parts[i].text);
    } else if (parts[i].is_match && behavior == SplitBehavior::kRemoved) {
      end_piece({});
    } else {
      end_piece(parts[i].text);
    }
  }
  end_piece({});
}

// Before each replacement, which stays with what follows.
void SplitBeforeEach(std::string_view text, const std::string& replacement,
                     std::vector<std::string_view>* pieces) {
  size_t start = 0;
  while (start < text.size()) {
    size_t end = text.find(replacement, start);
    if (end == start) end = text.find(replacement, start + replacement.size());
    if (end == std::string_view::npos) end = text.size();
    pieces->push_back(text.substr(start, end - start));
    start = end;
  }
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Create(const std::vector<PreTokenizerStep>& steps) {
  std::vector<Step> compiled;
  for (const PreTokenizerStep& step : steps) {
    if (const auto* split = std::get_if<engine::Split>(&step)) {
      ABSTRACT_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::Compile(split->pattern));
      compiled.emplace_back(CompiledSplit{std::move(pattern), split->behavior, split->invert});
      continue;
    }
    std::visit(
        Overloaded{[](const engine::Split&) {}, [&](const auto& other) { compiled.emplace_back(other); }},
        step);
  }
  return PreTokenizer(std::move(compiled));
}

TextPieces PreTokenizer::Split(std::string_view text, bool at_start) const {
  TextPieces pieces;
  pieces.at_start = at_start;
  if (!text.empty()) pieces.views.push_back(text);
  for (const Step& step : steps_) {
    std::visit([&](const auto& compiled) { Apply(compiled, &pieces); }, step);
  }
  return pieces;
}

void PreTokenizer::Apply(const CompiledSplit& split, TextPieces* pieces) {
  std::vector<std::string_view> finer;
  for (const std::string_view piece : pieces->views) {
    std::vector<Part> parts = split.pattern.Cut(piece);
    for (Part& part : parts) part.is_match ^= split.invert;
    AppendPieces(parts, split.behavior, &finer);
  }
  const bool begins_as_before = !finer.empty() && finer.front().data() == pieces->views.front().data();
  pieces->at_start = pieces->at_start && begins_as_before;
  pieces->views = std::move(finer);
}

void PreTokenizer::Apply(const Metaspace& metaspace, TextPieces* pieces) {
  std::vector<std::string_view> finer;
  for (const std::string_view piece : pieces->views) {
    std::string text = absl::StrReplaceAll({piece.data(), piece.size()}, {{" ", metaspace.replacement}});
    const bool first = pieces->at_start && piece.data() == pieces->views.front().data();
    const bool wanted =
        metaspace.scheme == PrependScheme::kAlways || (metaspace.scheme == PrependScheme::kFirst && first);
    if (wanted && text.rfind(metaspace.replacement, 0) != 0) text.insert(0, metaspace.replacement);
    const std::string_view stored = pieces->storage.emplace_back(std::move(text));
    if (metaspace.split) {
      SplitBeforeEach(stored, metaspace.replacement, &finer);
    } else {
      finer.push_back(stored);
    }
  }
  pieces->views = std::move(finer);
}

void PreTokenizer::Apply(const PrefixSpace& /*prefix*/, TextPieces* pieces) {
  for (std::string_view& piece : pieces->views) {
    if (piece.front() == ' ') continue;
    piece = pieces->storage.emplace_back(" " + std::string(piece));
  }
}

}  // namespace mechinterp::engine
