#include "services/engine/interventions/edit_compiler.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/overloaded.h"
#include "services/engine/base/random.h"

namespace mechinterp::engine {
namespace {

float Finite(double value, const FieldViolations& violations) {
  const auto rounded = static_cast<float>(value);
  if (!std::isfinite(value)) {
    violations.Add("must be finite");
  } else if (!std::isfinite(rounded)) {
    violations.Add("must be in the range of fp32, at most 3.4e38 in size");
  }
  return rounded;
}

AddValues CompileAddition(const EditTarget& target, const Addition& edit, const FieldViolations& violations) {
  return {BroadcastTensor(edit.vector, target.part, violations.At("vector")),
          Finite(edit.scale, violations.At("scale"))};
}

RemoveProjection CompileProjectionRemoval(const EditTarget& target, const ProjectionRemoval& edit,
                                          const FieldViolations& violations) {
  const FieldViolations at_direction = violations.At("direction");
  PartSize one_position = target.part;
  one_position.positions = 1;
  return {UnitDirection(BroadcastTensor(edit.direction, one_position, at_direction), at_direction)};
}

AddNoise CompileNoise(const NoiseAddition& edit, const FieldViolations& violations) {
  const FieldViolations at_deviation = violations.At("standard_deviation");
  const float deviation = Finite(edit.standard_deviation, at_deviation);
  if (deviation < 0) at_deviation.Add("must be at least 0");
  return {deviation, edit.seed};
}

}  // namespace

void EditCompiler::Compile(const EditTarget& target, const Edit& edit, PendingEdit& pending,
                           const FieldViolations& violations) {
  CompiledChange& change = pending.edit.change;
  std::visit(
      Overloaded{
          [&](const Replacement& edit) {
            CompileReplacement(target, edit, pending, violations.At("replacement").At("source"));
          },
          [&](const Zeroing&) {
            change = SetValues{{{{1, 1, 1}, {0.f}}}};
          },
          [&](const MeanReplacement& edit) {
            CompileMean(target, edit, pending, violations.At("mean_replacement"));
          },
          [&](const Resampling& edit) {
            CompileResampling(target, edit, pending, violations.At("resampling"));
          },
          [&](const Addition& edit) { change = CompileAddition(target, edit, violations.At("addition")); },
          [&](const Scaling& edit) {
            change = Multiply{Finite(edit.factor, violations.At("scaling").At("factor"))};
          },
          [&](const ProjectionRemoval& edit) {
            change = CompileProjectionRemoval(target, edit, violations.At("projection_removal"));
          },
          [&](const NoiseAddition& edit) { change = CompileNoise(edit, violations.At("noise_addition")); },
          [&](const PathPatch& edit) {
            CompilePathPatch(target, edit, pending, violations.At("path_patch"));
          },
      },
      edit);
}

void EditCompiler::CompileReplacement(const EditTarget& target, const Replacement& edit, PendingEdit& pending,
                                      const FieldViolations& violations) {
  if (const auto* tensor = std::get_if<HostTensor>(&edit.source.origin)) {
    pending.edit.change = SetValues{BroadcastTensor(*tensor, target.part, violations.At("tensor"))};
    return;
  }
  if (IsUnread(edit.source)) return;
  pending.fill = PendingEdit::Fill::kPerPosition;
  pending.uses = {runs_.UseAligned(target, edit.source, edit.source.alignment, violations)};
}

void EditCompiler::CompileMean(const EditTarget& target, const MeanReplacement& edit, PendingEdit& pending,
                               const FieldViolations& violations) {
  const bool pooled = edit.axis == MeanAxis::kSourcesAndPositions;
  pending.fill = pooled ? PendingEdit::Fill::kPooled : PendingEdit::Fill::kPerPosition;
  if (edit.sources.empty()) violations.At("sources").Add("must not be empty");
  std::vector<bool> covered(target.positions.size(), false);
  for (size_t i = 0; i < edit.sources.size(); ++i) {
    const ActivationSource& source = edit.sources[i];
    const FieldViolations at = violations.At("sources", i);
    if (IsUnread(source)) return;
    const TokenizedPrompt* prompt = PromptOf(source);
    if (prompt == nullptr) {
      at.Add("must be a stored run or a prompt");
      continue;
    }
    std::vector<int> positions;
    if (pooled) {
      positions =
          ResolvePositions(source.positions.value_or(target.selector.positions), *prompt, at.At("positions"));
    } else {
      if (source.positions) at.At("positions").Add("does not go with MEAN_AXIS_SOURCES");
      for (size_t p = 0; p < target.positions.size(); ++p) {
        const int position = target.positions[p] + prompt->length() - target.prompt.length();
        positions.push_back(position < 0 ? -1 : position);
        if (position >= 0) covered[p] = true;
      }
    }
    pending.uses.push_back(runs_.Use(target, source, std::move(positions), at));
  }
  if (pooled || edit.sources.empty()) return;
  for (size_t p = 0; p < covered.size(); ++p) {
    if (covered[p]) continue;
    violations.At("sources").Add(absl::StrCat("none is long enough to have a counterpart of position ",
                                              target.positions[p], " (counted from the end)"));
    return;
  }
}

void EditCompiler::CompilePathPatch(const EditTarget& target, const PathPatch& edit, PendingEdit& pending,
                                    const FieldViolations& violations) {
  if (!runs_.CheckSender(target, edit, violations) || IsUnread(edit.source)) return;
  if (PromptOf(edit.source) == nullptr) {
    violations.At("source").Add("must be a stored run or a prompt");
    return;
  }
  if (!target.selector.dims.empty()) {
    violations.Add("a path carries the whole of what its sender writes; leave selector.dims empty");
    return;
  }
  EditTarget sender = target;
  sender.site = edit.sender;
  pending.fill = PendingEdit::Fill::kDifference;
  pending.sender_head = edit.sender_head.value_or(0);
  pending.uses = {
      runs_.UseAligned(sender, edit.source, edit.source.alignment, violations.At("source")),
      runs_.Use(sender, ActivationSource{target.prompt, {}, {}, {}}, target.positions, violations)};
}

void EditCompiler::CompileResampling(const EditTarget& target, const Resampling& edit, PendingEdit& pending,
                                     const FieldViolations& violations) {
  pending.fill = PendingEdit::Fill::kPerPosition;
  if (edit.sources.empty()) {
    violations.At("sources").Add("must not be empty");
    return;
  }
  for (size_t i = 0; i < edit.sources.size(); ++i) {
    if (IsUnread(edit.sources[i])) return;
    if (PromptOf(edit.sources[i]) == nullptr) {
      violations.At("sources", i).Add("must be a stored run or a prompt");
      return;
    }
  }
  const size_t drawn = RandomBits(edit.seed, /*stream=*/0, /*counter=*/0) % edit.sources.size();
  pending.uses = {runs_.UseAligned(target, edit.sources[drawn], PositionAlignment::kEnd,
                                   violations.At("sources", drawn))};
}

}  // namespace mechinterp::engine
