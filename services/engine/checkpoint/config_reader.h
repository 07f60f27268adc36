#ifndef SERVICES_ENGINE_CHECKPOINT_CONFIG_READER_H_
#define SERVICES_ENGINE_CHECKPOINT_CONFIG_READER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"

namespace mechinterp::engine {

// Reads keys of one JSON object with messages that name file and key. A key whose
// value is null counts as absent, as in transformers. The object and the path
// must outlive it.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& object, const std::string& path) : object_(object), path_(path) {}

  bool Has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  // Null counts here.
  bool Mentions(const char* key) const { return object_.contains(key); }
  const nlohmann::json& operator[](const char* key) const { return object_[key]; }
  const std::string& path() const { return path_; }

  absl::Status Bad(absl::string_view key, absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": '", key, "' ", what));
  }
  absl::Status NotSupported(absl::string_view what) const {
    return absl::UnimplementedError(absl::StrCat(path_, ": ", what, " is not supported"));
  }

  absl::StatusOr<int> Size(const char* key, std::optional<int> fallback = std::nullopt) const {
    if (!Has(key)) {
      if (fallback) return *fallback;
      return Bad(key, "is missing");
    }
    const nlohmann::json& value = object_[key];
    if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > (1 << 30)) {
      return Bad(key, absl::StrCat("must be a positive integer, is ", Excerpt(value)));
    }
    return value.get<int>();
  }

  absl::StatusOr<double> Number(const char* key, std::optional<double> fallback = std::nullopt) const {
    if (!Has(key)) {
      if (fallback) return *fallback;
      return Bad(key, "is missing");
    }
    const nlohmann::json& value = object_[key];
    if (!value.is_number() || !(value.get<double>() > 0)) {
      return Bad(key, absl::StrCat("must be a positive number, is ", Excerpt(value)));
    }
    return value.get<double>();
  }

  absl::StatusOr<bool> Bool(const char* key, bool fallback) const {
    if (!Has(key)) return fallback;
    if (!object_[key].is_boolean()) {
      return Bad(key, absl::StrCat("must be true or false, is ", Excerpt(object_[key])));
    }
    return object_[key].get<bool>();
  }

 private:
  const nlohmann::json& object_;
  const std::string& path_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_CONFIG_READER_H_
