// abstract-make-planted: a model that refuses by a known circuit, to hold methods
// that look for circuits against.

#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "data/make_planted/planted_model.h"
#include "data/make_planted/variants.h"
#include "services/common/command_line.h"
#include "services/common/data_path.h"
#include "services/common/status_macros.h"
#include "services/common/version.h"

namespace mechinterp::make_planted {
namespace {

struct Options {
  std::string output;
  PlantedOptions planted;
};

void AddOptions(Command app, Options& options) {
  constexpr int kLargestSize = 1 << 20;
  std::vector<std::string> names;
  std::string footer = "Variants:";
  for (const Variant& variant : Variants()) {
    names.push_back(variant.name);
    absl::StrAppend(&footer, "\n  ", variant.name, ": ", variant.description);
  }
  PlantedOptions& planted = options.planted;
  app.AddOption("output", options.output, "Directory to make; it must not be there yet").Required();
  app.AddOption("--variant", planted.variant, "Circuit to plant").OneOf(names);
  app.AddOption("--seed", planted.seed, "Decides where the circuit lies, and all that is random");
  app.AddOption("--layers", planted.layers, "Decoder blocks").InRange(4, 100);
  app.AddOption("--heads", planted.heads, "Attention heads").InRange(8, kLargestSize);
  app.AddOption("--kv-heads", planted.kv_heads, "Key/value heads; must divide the heads")
      .InRange(2, kLargestSize);
  app.AddOption("--head-size", planted.head_size, "Width of a head; even").InRange(16, kLargestSize);
  app.AddOption("--d-model", planted.d_model, "Width of the residual stream").InRange(64, kLargestSize);
  app.AddOption("--d-ff", planted.d_ff, "Neurons of an MLP").InRange(8, kLargestSize);
  app.AddOption("--tokenizer", planted.tokenizer,
                "Directory whose tokenizer to take, with Llama 3's chat template");
  app.AddOption("--prompts", planted.prompts, "Prompt pairs that the model is to tell apart");
  app.AddOption("--refusal-phrases", planted.phrases, "File with the openings that the metric is made of");
  app.SetFooter(footer);
}

absl::Status Run(Options options) {
  PlantedOptions& planted = options.planted;
  for (std::string* path : {&planted.tokenizer, &planted.prompts, &planted.phrases}) *path = DataPath(*path);
  ABSTRACT_ASSIGN_OR_RETURN(const PlantedModel model, MakePlanted(planted));
  ABSTRACT_RETURN_IF_ERROR(WritePlanted(options.output, model));
  std::printf("%s: %s, right for %zu pairs\n", options.output.c_str(), planted.variant.c_str(),
              model.pair_count);
  for (const std::string& edge : model.edges) std::printf("  %s\n", edge.c_str());
  return absl::OkStatus();
}

}  // namespace
}  // namespace mechinterp::make_planted

int main(int argc, char** argv) {
  mechinterp::CommandLine command_line(
      "Writes a model in Hugging Face layout that refuses by a known circuit, and truth.json, "
      "which says which",
      "abstract-make-planted");
  mechinterp::make_planted::Options options;
  mechinterp::make_planted::AddOptions(command_line.root(), options);
  command_line.SetVersion(std::string("abstract-make-planted ") + mechinterp::kVersion);
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  const absl::Status status = mechinterp::make_planted::Run(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "abstract-make-planted: %s\n", std::string(status.message()).c_str());
  return 1;
}
