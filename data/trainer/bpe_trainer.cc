#include "data/trainer/bpe_trainer.h"

#include <set>
#include <string_view>

#include "services/common/status_macros.h"
#include "services/engine/tokenizer/byte_alphabet.h"
#include "services/engine/tokenizer/text_pattern.h"

namespace mechinterp::trainer {
namespace {

struct Word {
  std::vector<std::string> symbols;
  int64_t count = 0;
};

// GPT-2's order of the 256 bytes, which all byte-level vocabularies begin with:
// the printable ones, then the others.
std::vector<std::string> ByteTokens() {
  std::vector<std::string> printable, others;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    const bool is_printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    (is_printable ? printable : others).push_back(engine::BytesToAlphabet(bytes));
  }
  printable.insert(printable.end(), others.begin(), others.end());
  return printable;
}

void ApplyMerge(const std::pair<std::string, std::string>& merge, Word& word) {
  std::vector<std::string> merged;
  for (size_t i = 0; i < word.symbols.size(); ++i) {
    if (i + 1 < word.symbols.size() && word.symbols[i] == merge.first &&
        word.symbols[i + 1] == merge.second) {
      merged.push_back(merge.first + merge.second);
      ++i;
    } else {
      merged.push_back(word.symbols[i]);
    }
  }
  word.symbols = std::move(merged);
}

}  // namespace

const char* const kLlama3SplitPattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

absl::Status CountWords(const std::vector<std::string>& texts, WordCounts& counts) {
  const engine::Pattern pattern{std::string(kLlama3SplitPattern), /*is_regex=*/true};
  ABSTRACT_ASSIGN_OR_RETURN(const engine::TextPattern regex, engine::TextPattern::Compile(pattern));
  for (const std::string& text : texts) {
    for (const engine::TextPattern::Part& part : regex.Cut(text)) ++counts[std::string(part.text)];
  }
  return absl::OkStatus();
}

BpeVocabulary TrainBpe(const WordCounts& counts, size_t max_tokens) {
  std::vector<Word> words;
  for (const auto& [text, count] : counts) {
    Word word{{}, count};
    for (char byte : text) word.symbols.push_back(engine::BytesToAlphabet(std::string(1, byte)));
    words.push_back(std::move(word));
  }
  BpeVocabulary vocabulary{ByteTokens(), {}};
  std::set<std::string> known(vocabulary.tokens.begin(), vocabulary.tokens.end());
  while (vocabulary.tokens.size() < max_tokens) {
    std::map<std::pair<std::string, std::string>, int64_t> pairs;
    for (const Word& word : words) {
      for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
        pairs[{word.symbols[i], word.symbols[i + 1]}] += word.count;
      }
    }
    const std::pair<const std::pair<std::string, std::string>, int64_t>* best = nullptr;
    for (const auto& pair : pairs) {
      if (best == nullptr || pair.second > best->second) best = &pair;
    }
    if (best == nullptr) break;  // every word is one token
    const auto merge = best->first;
    for (Word& word : words) ApplyMerge(merge, word);
    vocabulary.merges.push_back(merge);
    // Two merges may lead to one token ("ab"+"c", "a"+"bc").
    if (known.insert(merge.first + merge.second).second) {
      vocabulary.tokens.push_back(merge.first + merge.second);
    }
  }
  return vocabulary;
}

}  // namespace mechinterp::trainer
