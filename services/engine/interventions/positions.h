#ifndef SERVICES_ENGINE_INTERVENTIONS_POSITIONS_H_
#define SERVICES_ENGINE_INTERVENTIONS_POSITIONS_H_

#include <optional>
#include <vector>

#include "services/common/violations.h"
#include "services/engine/base/token_id.h"

namespace mechinterp::engine {

// A prompt as the model reads it.
struct TokenizedPrompt {
  std::vector<TokenId> ids;
  // Index of the last token of the last user message; unset but for chats.
  std::optional<int> last_instruction_position;

  int length() const { return static_cast<int>(ids.size()); }
};

enum class NamedPosition { kLast, kLastInstruction, kTemplateTail };

// Half-open; negative bounds count from the end; no end: the prompt's end.
struct PositionRange {
  int start = 0;
  std::optional<int> end;
};

// The union of everything listed; empty selects all.
struct PositionSelector {
  std::vector<int> indices;  // negative counts from the end
  std::vector<PositionRange> ranges;
  std::vector<NamedPosition> named;

  bool selects_all() const { return indices.empty() && ranges.empty() && named.empty(); }
  // Whether every position was given by its distance from the end, so that it
  // means the same place in prompts of different length.
  bool counts_from_end() const;
};

// The selected positions of `prompt`, ascending, without duplicates. What lies
// outside the prompt, empty ranges and names that the prompt does not have are
// added to `violations`.
std::vector<int> ResolvePositions(const PositionSelector& selector, const TokenizedPrompt& prompt,
                                  const FieldViolations& violations);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_POSITIONS_H_
