#include "services/common/violations.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace mechinterp {

FieldViolations FieldViolations::At(absl::string_view field) const {
  return FieldViolations(all_, path_.empty() ? std::string(field) : absl::StrCat(path_, ".", field));
}

FieldViolations FieldViolations::At(absl::string_view field, size_t index) const {
  return At(absl::StrCat(field, "[", index, "]"));
}

bool FieldViolations::empty() const {
  if (all_->count() > Violations::kMaxKept) return false;
  return std::none_of(all_->list().begin(), all_->list().end(), [&](const Violation& violation) {
    absl::string_view field = violation.field;
    if (!absl::StartsWith(field, path_)) return false;
    field.remove_prefix(path_.size());
    return path_.empty() || field.empty() || field.front() == '.' || field.front() == '[';
  });
}

}  // namespace mechinterp
