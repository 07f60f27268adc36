#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/experiments/doctor.h"
#include "clients/lib/health.h"
#include "clients/lib/text_table.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/status_macros.h"
#include "services/common/version.h"

namespace mechinterp {
namespace {

// "MEMORY_PART_WEIGHTS_INT8" without its prefix, in plain letters: "weights int8".
std::string PlainName(const std::string& enum_name, const char* prefix) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(absl::StripPrefix(enum_name, prefix)), {{"_", " "}});
}

std::string Mebibytes(uint64_t bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(google::protobuf::util::TimeUtil::DurationToMilliseconds(duration)) / 1000;
}

std::string DeviceText(const v1::GetModelResponse& model) {
  const std::string device = PlainName(v1::Device_Name(model.identity().device()), "DEVICE_");
  return model.device().name().empty() ? device : absl::StrCat(device, ", ", model.device().name());
}

std::string ServerTable(const v1::DoctorReport& report) {
  const v1::GetModelResponse& model = report.model();
  const v1::ModelIdentity& identity = model.identity();
  TextTable table({"model", identity.name()});
  table.AlignLeft({1});
  table.AddRow({"hash", identity.model_hash()});
  table.AddRow({"quantization", PlainName(v1::Quantization_Name(identity.quantization()), "QUANTIZATION_")});
  table.AddRow(
      {"head", PlainName(v1::HeadQuantization_Name(identity.head_quantization()), "HEAD_QUANTIZATION_")});
  table.AddRow({"computes in", PlainName(v1::ComputeType_Name(identity.compute_type()), "COMPUTE_TYPE_")});
  table.AddRow({"device", DeviceText(model)});
  if (model.has_device()) {
    table.AddRow({"device memory",
                  absl::StrCat(Mebibytes(model.device().allocated_byte_count()), " taken by the server of ",
                               Mebibytes(model.device().memory_byte_count()))});
  }
  for (const v1::MemoryUsage& usage : model.memory()) {
    table.AddRow({absl::StrCat("  ", PlainName(v1::MemoryPart_Name(usage.part()), "MEMORY_PART_")),
                  Mebibytes(usage.byte_count())});
  }
  table.AddRow({"reserved for requests", Mebibytes(model.reserved_bytes())});
  table.AddRow(
      {"memory limit", model.has_memory_limit_bytes() ? Mebibytes(model.memory_limit_bytes()) : "none"});
  table.AddRow({"server", absl::StrCat(identity.server_version(), ", libtorch ", model.libtorch_version())});
  table.AddRow({"client", report.client_version()});
  table.AddRow({"health", report.health()});
  return table.ToString();
}

std::string CheckText(const v1::CheckDeviceResponse& check) {
  TextTable table({"layer", "relative error"});
  for (const v1::LayerCheck& layer : check.layers()) {
    table.AddRow({absl::StrCat(layer.layer()), absl::StrFormat("%.2e", layer.relative_error())});
  }
  table.AddRow({"head", absl::StrFormat("%.2e", check.head_relative_error())});
  return absl::StrFormat("\nThe device against the CPU: %s; tolerance %.1e, %.2f s\n%s",
                         check.passed() ? "PASSED" : "FAILED", check.tolerance(), Seconds(check.duration()),
                         table.ToString());
}

std::string SpeedTable(const v1::DoctorReport& report) {
  TextTable table({"speed", "", "measured on", "after a prompt of"});
  table.AlignLeft({2, 3});
  for (const v1::SpeedMeasurement& speed : report.speeds()) {
    const std::string unit = speed.kind() == v1::SPEED_KIND_SWEEP ? "runs" : "tokens";
    table.AddRow(
        {PlainName(v1::SpeedKind_Name(speed.kind()), "SPEED_KIND_"),
         absl::StrFormat("%.1f %s/s", speed.count_per_second(), unit),
         absl::StrFormat("%d %s in %.3f s", speed.count(), unit, Seconds(speed.duration())),
         speed.kind() == v1::SPEED_KIND_PREFILL ? "" : absl::StrCat(speed.prompt_token_count(), " tokens")});
  }
  return absl::StrCat("\n", table.ToString());
}

std::string Describe(const v1::DoctorReport& report) {
  std::string text = ServerTable(report);
  if (report.has_device_check()) absl::StrAppend(&text, CheckText(report.device_check()));
  if (report.speeds_size() > 0) absl::StrAppend(&text, SpeedTable(report));
  if (report.remarks_size() + report.problems_size() > 0) absl::StrAppend(&text, "\n");
  for (const std::string& remark : report.remarks()) absl::StrAppend(&text, "note: ", remark, "\n");
  for (const std::string& problem : report.problems()) absl::StrAppend(&text, "PROBLEM: ", problem, "\n");
  return text;
}

void AddHealth(const absl::StatusOr<ServingState>& health, v1::DoctorReport& report) {
  if (!health.ok()) {
    report.set_health("no health service");
  } else if (*health == ServingState::kServing) {
    report.set_health("serving");
  } else if (*health == ServingState::kNotServing) {
    report.set_health("not serving");
    report.add_problems("the server is not serving; its log says why");
  } else {
    report.set_health("unknown");
  }
}

absl::Status RunDoctor(Tool& tool) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "doctor"));
  ABSTRACT_ASSIGN_OR_RETURN(v1::DoctorReport report, ExamineServer(session->client(), &session->monitor()));
  report.set_client_version(kVersion);
  AddHealth(CheckHealth(session->channel(), absl::Seconds(10)), report);
  if (tool.json) {
    ABSTRACT_RETURN_IF_ERROR(PrintJson(tool, report));
  } else {
    tool.Print(Describe(report));
  }
  if (report.problems().empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(absl::StrJoin(report.problems(), "; "),
                   "; where the device is at fault, the server's --device cpu helps meanwhile"));
}

}  // namespace

void AddDoctorCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "doctor",
      "Examine a server: device, memory, check against the CPU, speed; --json to send along with a report");
  tool.SetActionOf(command, [&tool] { return RunDoctor(tool); });
}

}  // namespace mechinterp
