#ifndef CLIENTS_COMMANDS_COMPARE_TABLES_H_
#define CLIENTS_COMMANDS_COMPARE_TABLES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// How `abstract compare` shows its results. Pure functions; tables end in '\n'.

// Divergence, top-token agreement and perplexity.
std::string NextTokenTable(const v1::CompareResults& results);

// Relative error of the residual stream by layer, with a bar for its median.
std::string LayerTable(const v1::CompareResults& results);

// One position of one prompt.
struct PositionReference {
  const v1::PromptComparison* prompt;
  int index;

  const v1::PositionComparison& position() const { return prompt->positions(index); }
};

// The counted positions of the largest divergences, largest first; at most
// `count`, none whose divergence is 0. Refers to `results`.
std::vector<PositionReference> LargestDivergences(const v1::CompareResults& results, size_t count);

// What each server finds likeliest there; `text_of` tells the text of a token id.
std::string DivergenceTable(const std::vector<PositionReference>& positions,
                            const std::function<std::string(uint32_t)>& text_of);

// How many greedy continuations are the same, and the first that are not.
std::string ContinuationText(const v1::CompareResults& results);

}  // namespace mechinterp

#endif  // CLIENTS_COMMANDS_COMPARE_TABLES_H_
