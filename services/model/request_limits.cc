#include "services/model/request_limits.h"

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "services/common/status.h"

namespace mechinterp {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Entries of lists, and bytes of texts, by the field's name in whichever message. What is not here
// has what kOtherEntries and kOtherTextBytes say. Lists of numbers cost little more than they
// take on the wire, and are checked against the model where they are read.
const std::map<std::string, int>& Limits() {
  static const auto& limits = *new std::map<std::string, int>{
      {"interventions", kMostInterventions},
      {"sets", 1'000'000},  // as many as a grid may expand to
      {"sources", 4096},    // prompts or stored runs of a mean
      {"points", 256},      // there are some thirty
      {"layers", 65'536},
      {"axes", 16},
      {"name_patterns", 256},
      {"sites", 65'536},   // of a filter
      {"messages", 4096},  // of a chat
      {"refusal_openings", 4096},
      {"compliance_openings", 4096},
      {"stop_token_ids", 4096},
      {"edges", 4'000'000},  // all of an 8B model's are 1.6 million
      {"nodes", 1'000'000},
      {"circuits", 10'000},
      {"prompts", 10'000},
      {"texts", 10'000},
      {"indices", 262'144},  // positions: of twice the longest context there is
      {"ranges", 65'536},
      {"named", 256},
      {"pairs", 10'000},
      {"ids", 4'000'000},
      // Texts. A tokenizer's time and memory grow with them: some seconds for four megabytes.
      {"text", 4 << 20},
      {"content", 4 << 20},
      {"continuation_text", 4 << 20},
      {"name_pattern", 256},
  };
  return limits;
}

constexpr int kOtherEntries = 4'000'000;
constexpr int kOtherTextBytes = 256;
constexpr int kListedTextBytes = 256;  // of each text in a list

int LimitOf(const FieldDescriptor& field, int otherwise) {
  const auto found = Limits().find(field.name());
  return found == Limits().end() ? otherwise : found->second;
}

// Walks through a message; the path is put together only where something is wrong.
class Check {
 public:
  explicit Check(Violations& violations) : violations_(violations) {}

  void Visit(const Message& message) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      if (field->is_repeated()) {
        VisitList(message, *field);
      } else {
        VisitOne(message, *field);
      }
    }
  }

 private:
  struct Step {
    const FieldDescriptor* field;
    int index;  // -1: no list
  };

  void VisitList(const Message& message, const FieldDescriptor& field) {
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    const int count = reflection.FieldSize(message, &field);
    const int limit = LimitOf(field, kOtherEntries);
    if (count > limit)
      return Fault(field, absl::StrCat("has ", count, " entries, of which there may be ", limit));
    for (int i = 0; i < count; ++i) {
      if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        path_.push_back({&field, i});
        Visit(reflection.GetRepeatedMessage(message, &field, i));
        path_.pop_back();
      } else if (field.type() == FieldDescriptor::TYPE_STRING) {
        std::string room;
        const size_t bytes = reflection.GetRepeatedStringReference(message, &field, i, &room).size();
        if (bytes > kListedTextBytes) {
          path_.push_back({&field, i});
          violations_.Add(Path(), TooLong(bytes, kListedTextBytes));
          path_.pop_back();
        }
      } else {
        return;  // numbers
      }
    }
  }

  void VisitOne(const Message& message, const FieldDescriptor& field) {
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      path_.push_back({&field, -1});
      Visit(reflection.GetMessage(message, &field));
      path_.pop_back();
    } else if (field.type() == FieldDescriptor::TYPE_STRING) {
      std::string room;
      const size_t bytes = reflection.GetStringReference(message, &field, &room).size();
      const int limit = LimitOf(field, kOtherTextBytes);
      if (bytes > static_cast<size_t>(limit)) Fault(field, TooLong(bytes, limit));
    }
  }

  static std::string TooLong(size_t bytes, int limit) {
    return absl::StrCat("is ", bytes, " bytes long; it may be ", limit);
  }

  void Fault(const FieldDescriptor& field, const std::string& description) {
    path_.push_back({&field, -1});
    violations_.Add(Path(), description);
    path_.pop_back();
  }

  std::string Path() const {
    std::string path;
    for (const Step& step : path_) {
      absl::StrAppend(&path, path.empty() ? "" : ".", step.field->name());
      if (step.index >= 0) absl::StrAppend(&path, "[", step.index, "]");
    }
    return path;
  }

  Violations& violations_;
  std::vector<Step> path_;
};

}  // namespace

absl::Status CheckRequestLimits(const Message& request) {
  Violations violations;
  Check(violations).Visit(request);
  return ToStatus(violations);
}

}  // namespace mechinterp
