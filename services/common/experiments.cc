#include "services/common/experiments.h"

#include <filesystem>

#include "absl/strings/str_format.h"
#include "services/common/proto_json.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

const google::protobuf::FieldDescriptor* FieldOf(v1::ExperimentKind kind) {
  return v1::Study::descriptor()->FindFieldByNumber(kind);
}

std::vector<ExperimentInfo> ListExperiments() {
  std::vector<ExperimentInfo> experiments;
  for (int i = 0; i < v1::Study::descriptor()->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* const field = v1::Study::descriptor()->field(i);
    const std::string name(field->name());
    experiments.push_back({static_cast<v1::ExperimentKind>(field->number()), name,
                           absl::StrFormat("%02d_%s_results.json", field->number(), name)});
  }
  return experiments;
}

}  // namespace

const std::vector<ExperimentInfo>& Experiments() {
  static const auto& experiments = *new std::vector<ExperimentInfo>(ListExperiments());
  return experiments;
}

bool IsExperiment(int number) { return v1::Study::descriptor()->FindFieldByNumber(number) != nullptr; }

const ExperimentInfo& InfoOf(v1::ExperimentKind kind) {
  return Experiments().at(static_cast<size_t>(FieldOf(kind)->index()));
}

const google::protobuf::Message* ResultsOf(const v1::Study& study, v1::ExperimentKind kind) {
  const google::protobuf::FieldDescriptor* const field = FieldOf(kind);
  const google::protobuf::Reflection& reflection = *study.GetReflection();
  return reflection.HasField(study, field) ? &reflection.GetMessage(study, field) : nullptr;
}

google::protobuf::Message& MutableResultsOf(v1::Study& study, v1::ExperimentKind kind) {
  return *study.GetReflection()->MutableMessage(&study, FieldOf(kind));
}

void ClearResultsOf(v1::Study& study, v1::ExperimentKind kind) {
  study.GetReflection()->ClearField(&study, FieldOf(kind));
}

const v1::Provenance& ProvenanceOf(const google::protobuf::Message& results) {
  const auto* const field = results.GetDescriptor()->FindFieldByName("provenance");
  return static_cast<const v1::Provenance&>(results.GetReflection()->GetMessage(results, field));
}

absl::StatusOr<v1::Study> ReadResultsFiles(const std::string& folder) {
  v1::Study study;
  for (const ExperimentInfo& experiment : Experiments()) {
    const std::string path = (std::filesystem::path(folder) / experiment.file_name).string();
    const absl::StatusOr<std::string> json = ReadTextFile(path);
    if (absl::IsNotFound(json.status())) continue;
    ABSTRACT_RETURN_IF_ERROR(json.status());
    const absl::Status status = MessageFromJson(*json, &MutableResultsOf(study, experiment.kind));
    if (!status.ok()) return WithContext(status, path);
  }
  return study;
}

}  // namespace mechinterp
