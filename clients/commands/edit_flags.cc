#include "clients/commands/edit_flags.h"

#include <memory>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/lib/selectors.h"
#include "google/protobuf/util/json_util.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/common/tensor_proto.h"
#include "services/engine/checkpoint/safetensors.h"

namespace mechinterp {
namespace {

// The points that can be edited of those that the globs name, each once.
absl::StatusOr<std::vector<v1::HookSite>> FindSites(ModelClient& client,
                                                    const std::vector<std::string>& globs) {
  if (globs.empty())
    return FlagError("--site", "say where, as in blocks.3.attn.hook_z, or give --interventions");
  std::vector<v1::HookSite> sites;
  std::set<std::string> names;
  for (const std::string& glob : globs) {
    ABSTRACT_ASSIGN_OR_RETURN(const v1::ListHookPointsResponse found, client.ListHookPoints(glob));
    int editable = 0;
    for (const v1::HookPointInfo& point : found.hook_points()) {
      if (!point.can_edit()) continue;
      ++editable;
      if (names.insert(point.name()).second) sites.push_back(point.site());
    }
    if (editable == 0) {
      return FlagError("--site", absl::StrCat("\"", glob,
                                              "\" names no hook point that can be edited; "
                                              "`abstract hooks` lists them"));
    }
  }
  return sites;
}

absl::StatusOr<v1::Tensor> ReadVector(const std::string& where) {
  if (where.empty()) return FlagError("--vector", "this edit needs one, as FILE.safetensors:NAME");
  const size_t colon = where.rfind(':');
  const std::string path = where.substr(0, colon);
  ABSTRACT_ASSIGN_OR_RETURN(const auto file, engine::SafetensorsFile::Open(path));
  if (colon == std::string::npos && file->tensors().size() != 1) {
    return FlagError("--vector", absl::StrCat(path, " has ", file->tensors().size(),
                                              " tensors; name one: ", path, ":NAME"));
  }
  const std::string name =
      colon == std::string::npos ? file->tensors().begin()->first : where.substr(colon + 1);
  const engine::TensorView* const view = file->Find(name);
  if (view == nullptr) return FlagError("--vector", absl::StrCat(path, " has no tensor \"", name, "\""));
  ABSTRACT_ASSIGN_OR_RETURN(const engine::HostTensor tensor, engine::ToHostTensor(*view));
  return MakeTensor(tensor.shape, tensor.values);
}

absl::StatusOr<std::vector<v1::ActivationSource>> Sources(const EditFlags& flags, const PromptFlags& prompt) {
  std::vector<v1::ActivationSource> sources;
  for (const std::string& text : flags.source_prompts) {
    *sources.emplace_back().mutable_prompt()->mutable_prompt() = prompt.Wrap(text);
  }
  for (const std::string& handle : flags.source_handles) {
    sources.emplace_back().mutable_stored()->set_handle(handle);
  }
  if (sources.empty()) {
    return FlagError("--source-prompt",
                     "this edit takes values from other runs; give a prompt, or --source-handle");
  }
  if (!flags.source_positions.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const v1::PositionSelector positions, ParsePositions(flags.source_positions));
    for (v1::ActivationSource& source : sources) *source.mutable_positions() = positions;
  }
  return sources;
}

absl::Status SetReplacement(const EditFlags& flags, const PromptFlags& prompt,
                            v1::Intervention& intervention) {
  if (!flags.vector_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(*intervention.mutable_replacement()->mutable_source()->mutable_tensor(),
                              ReadVector(flags.vector_file));
    return absl::OkStatus();
  }
  ABSTRACT_ASSIGN_OR_RETURN(const auto sources, Sources(flags, prompt));
  if (sources.size() > 1)
    return FlagError("--source-prompt", "replace takes one source; use mean or resample");
  *intervention.mutable_replacement()->mutable_source() = sources[0];
  return absl::OkStatus();
}

absl::Status SetPath(ModelClient& client, const EditFlags& flags, const PromptFlags& prompt,
                     v1::PathPatch& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto sources, Sources(flags, prompt));
  if (sources.size() > 1) return FlagError("--source-prompt", "a path takes one source");
  *path.mutable_source() = sources[0];
  ABSTRACT_ASSIGN_OR_RETURN(const v1::ListHookPointsResponse found, client.ListHookPoints(flags.sender));
  if (flags.sender.empty() || found.hook_points_size() != 1) {
    return FlagError("--sender", "name one hook, as in blocks.3.attn.hook_result or blocks.2.hook_mlp_out");
  }
  *path.mutable_sender() = found.hook_points(0).site();
  if (flags.sender_head >= 0) path.set_sender_head(static_cast<uint32_t>(flags.sender_head));
  return absl::OkStatus();
}

absl::Status SetEdit(ModelClient& client, const EditFlags& flags, const PromptFlags& prompt,
                     v1::Intervention& intervention) {
  if (flags.edit == "replace") return SetReplacement(flags, prompt, intervention);
  if (flags.edit == "zero") {
    intervention.mutable_zeroing();
  } else if (flags.edit == "mean") {
    ABSTRACT_ASSIGN_OR_RETURN(const auto sources, Sources(flags, prompt));
    intervention.mutable_mean_replacement()->mutable_sources()->Assign(sources.begin(), sources.end());
    if (flags.mean_by_position) intervention.mutable_mean_replacement()->set_axis(v1::MEAN_AXIS_SOURCES);
  } else if (flags.edit == "resample") {
    ABSTRACT_ASSIGN_OR_RETURN(const auto sources, Sources(flags, prompt));
    intervention.mutable_resampling()->mutable_sources()->Assign(sources.begin(), sources.end());
    intervention.mutable_resampling()->set_seed(flags.seed);
  } else if (flags.edit == "add") {
    ABSTRACT_ASSIGN_OR_RETURN(*intervention.mutable_addition()->mutable_vector(),
                              ReadVector(flags.vector_file));
    intervention.mutable_addition()->set_scale(flags.scale);
  } else if (flags.edit == "scale") {
    intervention.mutable_scaling()->set_factor(flags.factor);
  } else if (flags.edit == "project-out") {
    ABSTRACT_ASSIGN_OR_RETURN(*intervention.mutable_projection_removal()->mutable_direction(),
                              ReadVector(flags.vector_file));
  } else if (flags.edit == "path") {
    return SetPath(client, flags, prompt, *intervention.mutable_path_patch());
  } else if (flags.edit == "noise") {
    intervention.mutable_noise_addition()->set_standard_deviation(flags.standard_deviation);
    intervention.mutable_noise_addition()->set_seed(flags.seed);
  } else {
    return FlagError("--edit", absl::StrCat("there is no edit ", flags.edit));
  }
  return absl::OkStatus();
}

}  // namespace

void EditFlags::AddTo(Command command) {
  command
      .AddOption(
          "--site", sites,
          "Hook points to edit, as in blocks.3.attn.hook_z or 'blocks.*.hook_resid_pre'; may be repeated")
      .OneValueEachTime();
  command.AddOption("--head,--heads", heads, "Heads, as in 2 or 0,3:5; default all").NotEmpty();
  command.AddOption("--dims", dims, "Indices on the last axis (neurons), as in 0:32; default all").NotEmpty();
  command
      .AddOption(
          "--positions", positions,
          "3, -1, 0:5, last, last-instruction, tail, decision (both), several with commas; default all")
      .NotEmpty();
  command.AddChoice("--scope", scope,
                    {{"default", v1::INTERVENTION_SCOPE_UNSPECIFIED},
                     {"prompt", v1::INTERVENTION_SCOPE_PROMPT},
                     {"generated", v1::INTERVENTION_SCOPE_GENERATED},
                     {"both", v1::INTERVENTION_SCOPE_PROMPT_AND_GENERATED}},
                    "Positions of the prompt, generated ones, or both");
  command.AddOption("--edit", edit, "The edit")
      .OneOf({"replace", "zero", "mean", "resample", "add", "scale", "project-out", "noise", "path"});
  command
      .AddOption("--source-prompt", source_prompts,
                 "replace, mean, resample, path: values of this prompt's run; may be repeated")
      .OneValueEachTime();
  command
      .AddOption("--source-handle", source_handles, "The same, from a run stored by `abstract cache --store`")
      .OneValueEachTime();
  command.AddOption("--source-positions", source_positions, "Positions in the source; default the same");
  command.AddFlag("--mean-by-position", mean_by_position, "mean: one mean per position, not one over all");
  command.AddOption("--vector", vector_file, "replace, add, project-out: a tensor, FILE.safetensors:NAME");
  command.AddOption("--sender", sender,
                    "path: what writes, as in blocks.3.attn.hook_result; --site is what reads, as in "
                    "blocks.5.hook_q_input");
  command.AddOption("--sender-head", sender_head, "path: its head, with hook_result").NonNegative();
  command.AddOption("--scale", scale, "add: times this");
  command.AddOption("--factor", factor, "scale: times this");
  command.AddOption("--sigma", standard_deviation, "noise: standard deviation");
  command.AddOption("--edit-seed", seed, "resample, noise: seed of the draw");
}

absl::StatusOr<std::vector<v1::Intervention>> EditFlags::Make(ModelClient& client,
                                                              const PromptFlags& prompt) const {
  v1::Intervention intervention;
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<uint32_t> head_list, ParseIndices(heads));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<uint32_t> dim_list, ParseIndices(dims));
  v1::Selector& selector = *intervention.mutable_selector();
  selector.mutable_heads()->Add(head_list.begin(), head_list.end());
  selector.mutable_dims()->Add(dim_list.begin(), dim_list.end());
  ABSTRACT_ASSIGN_OR_RETURN(*selector.mutable_positions(), ParsePositions(positions));
  selector.set_scope(scope);
  ABSTRACT_RETURN_IF_ERROR(SetEdit(client, *this, prompt, intervention));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<v1::HookSite> found, FindSites(client, sites));
  std::vector<v1::Intervention> interventions(found.size(), intervention);
  for (size_t i = 0; i < found.size(); ++i) *interventions[i].mutable_site() = found[i];
  return interventions;
}

absl::StatusOr<v1::InterventionSet> ReadInterventions(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(nlohmann::json document, ReadJsonFile(path));
  if (document.is_array()) document = nlohmann::json{{"interventions", document}};
  v1::InterventionSet set;
  // Unknown fields are refused: a typing error must not go unnoticed.
  const auto status = google::protobuf::util::JsonStringToMessage(document.dump(), &set);
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::string(status.message())));
  }
  if (set.interventions().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": \"interventions\" is missing or empty"));
  }
  return set;
}

}  // namespace mechinterp
