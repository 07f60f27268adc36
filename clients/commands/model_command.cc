#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/lib/health.h"
#include "clients/lib/text_table.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

std::string HealthText(const absl::StatusOr<ServingState>& health) {
  if (!health.ok()) return "no health service";
  switch (*health) {
    case ServingState::kServing:
      return "serving";
    case ServingState::kNotServing:
      return "not serving";
    default:
      return "unknown";
  }
}

// "QUANTIZATION_NF4" without its prefix, in small letters: "nf4".
std::string PlainName(const std::string& enum_name) {
  return absl::AsciiStrToLower(enum_name.substr(enum_name.find('_') + 1));
}

std::string Mebibytes(uint64_t bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

// What memory holds beside the weights, and the limit.
void AddMemory(const v1::GetModelResponse& model, TextTable& table) {
  for (const v1::MemoryUsage& usage : model.memory()) {
    switch (usage.part()) {
      case v1::MEMORY_PART_ACTIVATIONS:
        table.AddRow({"stored activations", Mebibytes(usage.byte_count())});
        break;
      case v1::MEMORY_PART_KEY_VALUE_CACHE:
        table.AddRow({"key/value caches", Mebibytes(usage.byte_count())});
        break;
      case v1::MEMORY_PART_SCRATCH:
        table.AddRow({"scratch", Mebibytes(usage.byte_count())});
        break;
      default:  // the weights
        break;
    }
  }
  if (model.has_memory_limit_bytes()) {
    table.AddRow({"memory limit", absl::StrCat(Mebibytes(model.memory_limit_bytes()), ", ",
                                               Mebibytes(model.reserved_bytes()), " reserved by requests")});
  }
}

std::string Describe(const v1::GetModelResponse& model) {
  const v1::ModelIdentity& identity = model.identity();
  TextTable table({"model", identity.name()});
  table.AlignLeft({1});
  table.AddRow({"hash", identity.model_hash()});
  table.AddRow({"architecture", model.architecture()});
  table.AddRow({"parameters", absl::StrCat(model.parameter_count())});
  table.AddRow({"layers", absl::StrCat(model.layer_count())});
  table.AddRow({"heads", absl::StrFormat("%d of size %d, %d for keys and values", model.head_count(),
                                         model.head_size(), model.key_value_head_count())});
  table.AddRow({"residual stream", absl::StrCat(model.d_model())});
  table.AddRow({"MLP neurons per layer", absl::StrCat(model.d_ff())});
  table.AddRow({"vocabulary", absl::StrCat(model.vocabulary_size())});
  table.AddRow({"context length", absl::StrCat(model.context_length())});
  table.AddRow({"tokenizer", model.has_tokenizer() ? "yes" : "no, token ids only"});
  table.AddRow({"chat template", model.has_chat_template() ? model.chat_template() : "none"});
  table.AddRow({"stop tokens", absl::StrJoin(model.stop_token_ids(), ", ")});
  table.AddRow({"quantization", PlainName(v1::Quantization_Name(identity.quantization()))});
  table.AddRow({"device", PlainName(v1::Device_Name(identity.device()))});
  table.AddRow({"weights in memory", Mebibytes(model.weight_bytes())});
  AddMemory(model, table);
  table.AddRow({"server", absl::StrCat(identity.server_version(), ", libtorch ", model.libtorch_version())});
  return table.ToString();
}

absl::Status RunModel(Tool& tool) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "model"));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::GetModelResponse model, session->client().GetModel());
  if (tool.json) return PrintJson(tool, model);
  tool.Print(absl::StrCat(Describe(model),
                          "health: ", HealthText(CheckHealth(session->channel(), absl::Seconds(10))), "\n"));
  return absl::OkStatus();
}

}  // namespace

void AddModelCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand("model", "Show the served model and its health");
  tool.SetActionOf(command, [&tool] { return RunModel(tool); });
}

}  // namespace mechinterp
