// abstract-make-checkpoint: a random model of any Llama shape, to measure and
// test with where the real weights cannot be had.

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "data/make_checkpoint/random_weights.h"
#include "data/make_checkpoint/shape.h"
#include "data/make_checkpoint/tokenizer_files.h"
#include "services/common/command_line.h"
#include "services/common/status_macros.h"
#include "services/common/version.h"
#include "services/engine/checkpoint/tensor_table.h"

namespace mechinterp::make_checkpoint {
namespace {

using engine::NumberFormat;

struct Options {
  std::string output;
  std::string shape = "llama3-8b";
  std::optional<int> layers, heads, kv_heads, head_size, d_model, d_ff, vocabulary, context;
  bool tied = false, untied = false;  // neither: as the shape is
  std::string dtype = "bf16";
  uint64_t shard_bytes = engine::CheckpointWriteOptions().shard_bytes;
  uint64_t seed = 1;
  std::string tokenizer;
};

volatile sig_atomic_t interrupted = 0;

// Prints how far the writing is: over itself on a terminal, else a line now and then.
class Progress {
 public:
  explicit Progress(uint64_t total_bytes) : total_bytes_(total_bytes) {}
  ~Progress() {
    if (printed_ && on_terminal_) std::fputc('\n', stderr);
  }
  void Add(uint64_t bytes) {
    bytes_ += bytes;
    const Clock::time_point now = Clock::now();
    if (bytes_ < total_bytes_ &&
        now - last_ < (on_terminal_ ? std::chrono::seconds(1) : std::chrono::seconds(10))) {
      return;
    }
    last_ = now;
    printed_ = true;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    std::fprintf(stderr, "%s%.0f of %.0f MB (%.0f %%), %.0f MB/s%s", on_terminal_ ? "\r" : "", 1e-6 * bytes_,
                 1e-6 * total_bytes_, 100.0 * bytes_ / total_bytes_, 1e-6 * bytes_ / seconds,
                 on_terminal_ ? "   " : "\n");
  }

 private:
  using Clock = std::chrono::steady_clock;

  const uint64_t total_bytes_;
  const bool on_terminal_ = ::isatty(STDERR_FILENO) != 0;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
  uint64_t bytes_ = 0;
  bool printed_ = false;
};

// The same tensor, which counts its bytes and stops when the user interrupts: an
// error, so that the partial directory is removed.
engine::TensorSource Watched(engine::TensorSource source, Progress& progress) {
  source.write = [write = std::move(source.write), &progress](const engine::ByteSink& sink) {
    return write([&](absl::Span<const std::byte> bytes) {
      if (interrupted) return absl::CancelledError("interrupted");
      progress.Add(bytes.size());
      return sink(bytes);
    });
  };
  return source;
}

NumberFormat DTypeOf(const Options& options) {
  return engine::NumberFormatOfShortName(options.dtype).value_or(NumberFormat::kBFloat16);
}

absl::StatusOr<engine::ModelConfig> ShapeOf(const Options& options) {
  ABSTRACT_ASSIGN_OR_RETURN(engine::ModelConfig shape, PresetShape(options.shape));
  shape.layers.resize(options.layers.value_or(shape.layer_count()), shape.layers.front());
  shape.head_count = options.heads.value_or(shape.head_count);
  shape.key_value_head_count = options.kv_heads.value_or(shape.key_value_head_count);
  shape.head_size = options.head_size.value_or(shape.head_size);
  shape.d_model = options.d_model.value_or(shape.d_model);
  shape.d_ff = options.d_ff.value_or(shape.d_ff);
  shape.vocabulary_size = options.vocabulary.value_or(shape.vocabulary_size);
  shape.context_length = options.context.value_or(shape.context_length);
  if (options.tied || options.untied) shape.tied_embeddings = options.tied;
  DropTokensPastTheVocabulary(shape);
  return shape;
}

absl::Status Run(const Options& options) {
  const NumberFormat dtype = DTypeOf(options);
  ABSTRACT_ASSIGN_OR_RETURN(engine::ModelConfig shape, ShapeOf(options));
  engine::CheckpointFiles tokenizer_files;
  if (!options.tokenizer.empty()) {
    ABSTRACT_RETURN_IF_ERROR(AddTokenizer(options.tokenizer, shape, tokenizer_files));
  }
  ABSTRACT_ASSIGN_OR_RETURN(engine::CheckpointFiles files, ConfigFiles(shape, dtype));
  files.merge(tokenizer_files);

  std::vector<engine::TensorSource> tensors;
  uint64_t bytes = 0;
  for (const engine::TensorInfo& tensor : engine::ModelTensors(shape)) {
    if (tensor.optional) continue;
    tensors.push_back(RandomTensor(tensor.name, tensor.shape, dtype, options.seed));
    ABSTRACT_ASSIGN_OR_RETURN(const uint64_t tensor_bytes, engine::TensorBytes(tensors.back()));
    bytes += tensor_bytes;
  }
  std::fprintf(stderr, "%s: %.2f million parameters, %.2f MB\n", options.output.c_str(),
               1e-6 * static_cast<double>(bytes) / engine::ByteWidth(dtype),
               1e-6 * static_cast<double>(bytes));
  Progress progress(bytes);
  for (engine::TensorSource& tensor : tensors) tensor = Watched(std::move(tensor), progress);
  return engine::WriteCheckpoint(options.output, tensors, files, {.shard_bytes = options.shard_bytes});
}

void AddOptions(Command app, Options& options) {
  constexpr int kLargestSize = 1 << 30;
  app.AddOption("output", options.output, "Directory to make; it must not be there yet").Required();
  app.AddOption("--shape", options.shape, "Model whose sizes to take").OneOf(PresetNames());
  app.AddOption("--layers", options.layers, "Decoder blocks, instead of the shape's").InRange(1, 10000);
  app.AddOption("--heads", options.heads, "Attention heads").InRange(1, kLargestSize);
  app.AddOption("--kv-heads", options.kv_heads, "Key/value heads; must divide the heads")
      .InRange(1, kLargestSize);
  app.AddOption("--head-size", options.head_size, "Width of a head; even").InRange(1, kLargestSize);
  app.AddOption("--d-model", options.d_model, "Width of the residual stream").InRange(1, kLargestSize);
  app.AddOption("--d-ff", options.d_ff, "Neurons of an MLP").InRange(1, kLargestSize);
  app.AddOption("--vocabulary", options.vocabulary, "Tokens").InRange(1, kLargestSize);
  app.AddOption("--context", options.context, "Longest sequence, in tokens").InRange(1, kLargestSize);
  const Option tied = app.AddFlag("--tied", options.tied, "The output head is the embedding itself");
  app.AddFlag("--untied", options.untied, "The output head is a matrix of its own").Excludes(tied);
  app.AddOption("--dtype", options.dtype, "Type of the weights: bf16, f16 or f32")
      .OneOf({"bf16", "f16", "f32"});
  app.AddOption("--shard-bytes", options.shard_bytes, "Most bytes of weights in a file (5GB, 300MiB)")
      .DefaultText("5GB")
      .ByteSuffixes(ByteUnits::kKiloIs1000)
      .Positive();
  app.AddOption("--seed", options.seed, "Decides the weights");
  app.AddOption("--tokenizer", options.tokenizer, "Directory whose tokenizer to copy").ExistingDirectory();
}

}  // namespace
}  // namespace mechinterp::make_checkpoint

int main(int argc, char** argv) {
  mechinterp::CommandLine command_line(
      "Writes a checkpoint of random weights in Hugging Face layout, of any Llama shape",
      "abstract-make-checkpoint");
  mechinterp::make_checkpoint::Options options;
  mechinterp::make_checkpoint::AddOptions(command_line.root(), options);
  command_line.SetVersion(std::string("abstract-make-checkpoint ") + mechinterp::kVersion);
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  for (int number : {SIGINT, SIGTERM}) {
    ::signal(number, [](int) { mechinterp::make_checkpoint::interrupted = 1; });
  }
  const absl::Status status = mechinterp::make_checkpoint::Run(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "abstract-make-checkpoint: %s\n", std::string(status.message()).c_str());
  return 1;
}
