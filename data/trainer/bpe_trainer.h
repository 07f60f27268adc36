#ifndef DATA_TRAINER_BPE_TRAINER_H_
#define DATA_TRAINER_BPE_TRAINER_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mechinterp::trainer {

// Llama 3's pre-tokenizer pattern, by which the tiny tokenizer splits too.
extern const char* const kLlama3SplitPattern;

// Words (pieces of the pre-tokenizer, as bytes) with their counts.
using WordCounts = std::map<std::string, int64_t>;

// Adds the pieces of `text` to `counts`.
absl::Status CountWords(const std::vector<std::string>& texts, WordCounts& counts);

// A byte-level BPE vocabulary: tokens in the byte alphabet, the 256 bytes first,
// and the merges in order of rank.
struct BpeVocabulary {
  std::vector<std::string> tokens;
  std::vector<std::pair<std::string, std::string>> merges;
};

// Merges the most frequent pair of neighbours (ties: the pair that sorts first)
// until there are `max_tokens` tokens or every word is one token. The result
// depends on the counts alone.
BpeVocabulary TrainBpe(const WordCounts& counts, size_t max_tokens);

// Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json in
// Hugging Face's layout: Llama 3's structure, special tokens and chat template.
absl::Status WriteTokenizerFiles(const std::string& folder, const BpeVocabulary& vocabulary);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_BPE_TRAINER_H_
