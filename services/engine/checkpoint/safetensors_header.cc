#include "services/engine/checkpoint/safetensors_header.h"

#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// Far beyond what any model has.
constexpr size_t kMaxRank = 32;
constexpr size_t kMaxNameBytes = 4096;
constexpr char kMetadata[] = "__metadata__";

// Takes the parser's events. Each returns whether to go on; on the first fault
// status_ says what it is.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  explicit HeaderReader(const std::string& path) : path_(path) {}

  absl::StatusOr<SafetensorsHeader> Result() && {
    if (!status_.ok()) return status_;
    return std::move(header_);
  }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kOutside:
        return Enter(Place::kRoot);
      case Place::kRoot:
        return Enter(name_ == kMetadata ? Place::kMetadata : Place::kTensor);
      default:
        return FailNested();
    }
  }
  bool end_object() override {
    if (place_ == Place::kTensor && !FinishTensor()) return false;
    return Enter(place_ == Place::kRoot ? Place::kOutside : Place::kRoot);
  }
  bool start_array(size_t) override {
    if (place_ == Place::kTensor && field_ == "shape") return Enter(Place::kShape);
    if (place_ == Place::kTensor && field_ == "data_offsets") return Enter(Place::kOffsets);
    return place_ == Place::kTensor ? FailNested() : Misplaced();
  }
  bool end_array() override { return Enter(Place::kTensor); }

  bool key(string_t& text) override {
    if (text.size() > kMaxNameBytes) return Fail(absl::StrCat("it has a name of ", text.size(), " bytes"));
    if (place_ == Place::kRoot) return StartTensor(text);
    field_ = text;
    if (place_ == Place::kTensor && !fields_.insert(text).second) {
      return FailTensor(absl::StrCat("gives ", text, " twice"));
    }
    return true;
  }

  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[field_] = std::move(text);
      return true;
    }
    if (place_ != Place::kTensor || field_ != "dtype") return Misplaced();
    const std::optional<NumberFormat> dtype = ParseDType(text);
    if (!dtype) {
      status_ =
          absl::UnimplementedError(absl::StrCat(path_, ": tensor '", name_, "' has dtype ",
                                                text.substr(0, kMaxNameBytes), ", which is not supported"));
      return false;
    }
    entry_.dtype = *dtype;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) return AddDimension(value);
    if (place_ == Place::kOffsets) return AddOffset(value);
    return Misplaced();
  }
  bool number_integer(number_integer_t) override { return Misplaced(); }  // negative
  bool number_float(number_float_t, const string_t&) override { return Misplaced(); }
  bool boolean(bool) override { return Misplaced(); }
  // Python's writers put null where they have no metadata.
  bool null() override { return (place_ == Place::kRoot && name_ == kMetadata) || Misplaced(); }
  bool binary(binary_t&) override { return Misplaced(); }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return Fail(absl::StrCat("the header is not a JSON object in UTF-8: fault at its byte ", position));
  }

 private:
  enum class Place { kOutside, kRoot, kMetadata, kTensor, kShape, kOffsets };

  bool Enter(Place place) {
    place_ = place;
    return true;
  }
  bool Fail(absl::string_view what) {
    status_ = MalformedSafetensors(path_, what);
    return false;
  }
  bool FailTensor(absl::string_view what) { return Fail(absl::StrCat("tensor '", name_, "' ", what)); }

  bool FailNested() {
    return place_ == Place::kMetadata ? Misplaced() : FailTensor(absl::StrCat("has a bad ", field_));
  }

  // A value of a kind that cannot stand where it does.
  bool Misplaced() {
    switch (place_) {
      case Place::kOutside:
        return Fail("the header is not a JSON object");
      case Place::kRoot:
        if (name_ == kMetadata) return Fail("__metadata__ is not an object");
        return FailTensor("lacks dtype, shape or data_offsets");
      case Place::kMetadata:
        return Fail(absl::StrCat("__metadata__ has a value that is not a string, '", field_, "'"));
      case Place::kTensor:
        // Keys that the format does not know may hold what is not nested.
        if (field_ != "dtype" && field_ != "shape" && field_ != "data_offsets") return true;
        return FailTensor(absl::StrCat("has a bad ", field_));
      case Place::kShape:
        return FailTensor("has a bad shape");
      case Place::kOffsets:
        return FailTensor("has bad data_offsets");
    }
    return false;
  }

  bool StartTensor(const std::string& name) {
    name_ = name;
    entry_ = {};
    fields_.clear();
    offset_count_ = 0;
    const bool is_new =
        name == kMetadata ? !std::exchange(has_metadata_, true) : !header_.tensors.contains(name);
    return is_new || FailTensor("is listed twice");
  }
  bool FinishTensor() {
    if (!fields_.contains("dtype") || !fields_.contains("shape") || offset_count_ != 2) {
      return FailTensor("lacks dtype, shape or data_offsets");
    }
    header_.tensors.emplace(name_, std::move(entry_));
    return true;
  }
  bool AddDimension(uint64_t value) {
    if (entry_.shape.size() == kMaxRank) return FailTensor("has too many dimensions");
    if (value > std::numeric_limits<int64_t>::max()) return FailTensor("has an impossibly large shape");
    entry_.shape.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool AddOffset(uint64_t value) {
    if (offset_count_ == 2) return Misplaced();
    (offset_count_++ == 0 ? entry_.begin : entry_.end) = value;
    return true;
  }

  const std::string& path_;
  SafetensorsHeader header_;
  absl::Status status_;
  Place place_ = Place::kOutside;
  std::string name_;              // of the tensor that is being read
  std::string field_;             // its last key
  std::set<std::string> fields_;  // its keys
  SafetensorsHeader::Entry entry_;
  int offset_count_ = 0;
  bool has_metadata_ = false;
};

}  // namespace

absl::Status MalformedSafetensors(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": not a valid safetensors file: ", what));
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text, const std::string& path) {
  HeaderReader reader(path);
  json::sax_parse(text.data(), text.data() + text.size(), &reader);
  return std::move(reader).Result();
}

}  // namespace mechinterp::engine
