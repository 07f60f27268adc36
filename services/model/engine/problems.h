#ifndef SERVICES_MODEL_ENGINE_PROBLEMS_H_
#define SERVICES_MODEL_ENGINE_PROBLEMS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace mechinterp::engine {

// What is wrong with a request, by field path, all of it at once. A cheap view
// that knows its place: Problems(list).At("interventions", 2).At("site") adds
// under "interventions[2].site". Not thread-safe.
struct Problem {
  std::string field;
  std::string description;
};

class Problems {
 public:
  explicit Problems(std::vector<Problem>* list, std::string path = "")
      : list_(list), path_(std::move(path)) {}

  Problems At(absl::string_view field) const {
    return Problems(list_, path_.empty() ? std::string(field) : absl::StrCat(path_, ".", field));
  }
  Problems At(absl::string_view field, size_t index) const {
    return At(absl::StrCat(field, "[", index, "]"));
  }
  void Add(absl::string_view description) const { list_->push_back({path_, std::string(description)}); }
  bool empty() const { return list_->empty(); }

 private:
  std::vector<Problem>* list_;
  std::string path_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_PROBLEMS_H_
