#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/commands/edit_flags.h"
#include "clients/commands/prompt_flags.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/lib/files.h"
#include "clients/lib/selectors.h"
#include "clients/lib/text_table.h"
#include "mechinterp/v1/tool.pb.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/safetensors_writer.h"

namespace mechinterp {
namespace {

struct CacheFlags {
  PromptFlags prompt;
  std::vector<std::string> filters;
  std::string positions;
  std::string output = "activations.safetensors";
  std::string interventions_file;
  v1::DataType type = v1::DATA_TYPE_UNSPECIFIED;
  bool store = false;
  int ttl_seconds = 3600;
};

absl::StatusOr<v1::RunWithCacheRequest> MakeRequest(const Tool& tool, const CacheFlags& flags) {
  v1::RunWithCacheRequest request;
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_prompt(), flags.prompt.Read(tool.streams.in));
  request.mutable_filter()->mutable_name_patterns()->Assign(flags.filters.begin(), flags.filters.end());
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_filter()->mutable_positions(), ParsePositions(flags.positions));
  if (!flags.interventions_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const v1::InterventionSet set, ReadInterventions(flags.interventions_file));
    *request.mutable_interventions() = set.interventions();
  }
  request.set_data_type(flags.type);
  if (flags.store) {
    request.set_store(true);
    request.set_store_ttl_seconds(static_cast<uint32_t>(flags.ttl_seconds));
  }
  return request;
}

// What a reader of the file needs to know about the run.
std::map<std::string, std::string> MetadataOf(const CachedRun& run, const CacheFlags& flags) {
  const v1::ModelIdentity& model = run.header.model();
  return {{"format", "abstract-activations-1"},
          {"model", model.name()},
          {"model_hash", model.model_hash()},
          {"quantization", v1::Quantization_Name(model.quantization())},
          {"device", v1::Device_Name(model.device())},
          {"server_version", model.server_version()},
          {"prompt_token_ids", absl::StrJoin(run.header.prompt_token_ids(), ",")},
          {"sent_as", v1::DataType_Name(run.header.activations(0).data_type())},
          {"positions", flags.positions.empty() ? "all" : flags.positions},
          {"interventions", flags.interventions_file.empty() ? "none" : flags.interventions_file}};
}

absl::Status WriteActivations(const CachedRun& run, const CacheFlags& flags) {
  std::vector<engine::TensorToWrite> tensors;
  for (const Activation& activation : run.activations) {
    engine::TensorToWrite tensor;
    tensor.name = activation.info.name();
    tensor.shape.assign(activation.info.shape().begin(), activation.info.shape().end());
    tensor.values = activation.values;
    tensors.push_back(std::move(tensor));
  }
  return engine::WriteSafetensors(flags.output, tensors, MetadataOf(run, flags));
}

std::string TableOf(const v1::RunHeader& header) {
  TextTable table({"activation", "shape", "bytes"});
  for (const v1::ActivationInfo& info : header.activations()) {
    table.AddRow({info.name(), absl::StrCat("[", absl::StrJoin(info.shape(), ", "), "]"),
                  absl::StrCat(info.byte_count())});
  }
  return table.ToString();
}

absl::Status RunCache(Tool& tool, const CacheFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(const v1::RunWithCacheRequest request, MakeRequest(tool, flags));
  if (!flags.store) ABSTRACT_RETURN_IF_ERROR(CheckWritable(flags.output));
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "cache"));
  ABSTRACT_ASSIGN_OR_RETURN(const CachedRun run, session->client().RunWithCache(request));
  if (!tool.quiet) tool.streams.err << TableOf(run.header);
  v1::CacheReport report;
  *report.mutable_header() = run.header;
  *report.mutable_summary() = run.summary;
  if (flags.store) {
    tool.Note(
        absl::StrFormat("kept on the server for %d s after its last use; `abstract patch --source-handle` "
                        "reads it",
                        flags.ttl_seconds));
  } else {
    ABSTRACT_RETURN_IF_ERROR(WriteActivations(run, flags));
    report.set_output_path(flags.output);
  }
  if (tool.json) return PrintJson(tool, report);
  tool.streams.out << (flags.store ? run.summary.handle() : flags.output) << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddCacheCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand("cache", "Save a run's activations to a .safetensors file");
  const auto flags = std::make_shared<CacheFlags>();
  flags->prompt.AddTo(command);
  command
      .AddOption("--filter", flags->filters,
                 "Glob over hook names, as in 'blocks.*.attn.hook_z'; may be repeated")
      .Required()
      .OneValueEachTime();
  command.AddOption("--positions", flags->positions,
                    "3, -1, 0:5, last, last-instruction, tail, decision, several with commas; default all");
  command.AddOption("--output,-o", flags->output, "The file to write").Environment("ABSTRACT_CACHE_OUTPUT");
  command.AddOption("--interventions", flags->interventions_file, "JSON file of interventions in force");
  command.AddChoice("--data-type", flags->type,
                    std::vector<std::pair<std::string, v1::DataType>>{{"float32", v1::DATA_TYPE_FLOAT32},
                                                                      {"float16", v1::DATA_TYPE_FLOAT16},
                                                                      {"bfloat16", v1::DATA_TYPE_BFLOAT16}},
                    "How values are sent; the two short ones round them and take half the bytes. The file is "
                    "in fp32 all the same. Default: float32");
  command.AddFlag("--store", flags->store, "Store them on the server instead and print the handle");
  command.AddOption("--ttl", flags->ttl_seconds, "With --store: seconds a run is kept after its last use")
      .InRange(1, 86400);
  tool.SetActionOf(command, [&tool, flags] { return RunCache(tool, *flags); });
}

}  // namespace mechinterp
