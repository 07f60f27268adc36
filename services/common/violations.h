#ifndef SERVICES_COMMON_VIOLATIONS_H_
#define SERVICES_COMMON_VIOLATIONS_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace mechinterp {

// What is wrong with a request, by field path, all of it at once: the engine and the
// services report into the same list. Knows no protobuf; InvalidRequest (status.h)
// makes a status of it. Not thread-safe.

struct Violation {
  std::string field;  // "interventions[2].site.layer"
  std::string description;
};

class FieldViolations;

class Violations {
 public:
  // What is kept; the rest is counted, so that a hostile request fills no memory.
  static constexpr size_t kMaxKept = 100;

  void Add(absl::string_view field, absl::string_view description) {
    if (count_++ < kMaxKept) list_.push_back({std::string(field), std::string(description)});
  }
  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  // The first of them, kMaxKept at most.
  const std::vector<Violation>& list() const { return list_; }
  FieldViolations At(absl::string_view field);
  // The whole request, whose path is empty.
  FieldViolations root();

 private:
  std::vector<Violation> list_;
  size_t count_ = 0;
};

// The list as seen from one field: a cheap view that knows its place. Must not outlive
// the list.
//   violations.At("interventions", 2).At("site").Add("...")   // "interventions[2].site"
class FieldViolations {
 public:
  explicit FieldViolations(Violations* all, std::string path = "") : all_(all), path_(std::move(path)) {}

  FieldViolations At(absl::string_view field) const;
  FieldViolations At(absl::string_view field, size_t index) const;
  void Add(absl::string_view description) const { all_->Add(path_, description); }
  // Whether nothing is wrong with this field, nor with those in it. False too when more
  // is wrong with the request than is kept.
  bool empty() const;

 private:
  Violations* all_;
  std::string path_;
};

inline FieldViolations Violations::root() { return FieldViolations(this); }
inline FieldViolations Violations::At(absl::string_view field) { return root().At(field); }

}  // namespace mechinterp

#endif  // SERVICES_COMMON_VIOLATIONS_H_
