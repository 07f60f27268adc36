// abstract-make-gguf: a GGUF file of random weights in the shape of a checkpoint,
// for llama.cpp's llama-bench. Matrices are Q4_0 or IQ4_NL, the output head Q6_K,
// norms F32: what llama.cpp's own quantizer chooses for those types.

#include <cmath>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/command_line.h"
#include "services/common/float16.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::benchmarks {
namespace {

// Numbers of the GGUF format, version 3.
constexpr uint32_t kVersion = 3, kAlignment = 32;
constexpr uint32_t kUint32Value = 4, kFloatValue = 6, kStringValue = 8;
enum class GgmlType : uint32_t { kFloat32 = 0, kQ4_0 = 2, kQ6K = 14, kIq4Nl = 20 };

struct TensorInfo {
  std::string name;
  std::vector<uint64_t> shape;  // innermost first
  GgmlType type;

  uint64_t element_count() const {
    uint64_t count = 1;
    for (uint64_t size : shape) count *= size;
    return count;
  }
  uint64_t bytes() const {
    switch (type) {
      case GgmlType::kFloat32:
        return element_count() * 4;
      case GgmlType::kQ6K:
        return element_count() / 256 * 210;
      default:
        return element_count() / 32 * 18;
    }
  }
  uint64_t padded_bytes() const { return (bytes() + kAlignment - 1) / kAlignment * kAlignment; }
};

// Little-endian, as GGUF and every machine that llama.cpp's CPU kernels are for.
class GgufWriter {
 public:
  explicit GgufWriter(std::ostream& out) : out_(out) {}

  template <typename T>
  void Number(T value) {
    out_.write(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void String(const std::string& text) {
    Number<uint64_t>(text.size());
    out_.write(text.data(), static_cast<std::streamsize>(text.size()));
  }
  void Entry(const std::string& key, uint32_t value) {
    Key(key, kUint32Value);
    Number(value);
  }
  void Entry(const std::string& key, float value) {
    Key(key, kFloatValue);
    Number(value);
  }
  void Entry(const std::string& key, const std::string& value) {
    Key(key, kStringValue);
    String(value);
  }
  uint64_t entry_count() const { return entry_count_; }

 private:
  void Key(const std::string& key, uint32_t type) {
    ++entry_count_;
    String(key);
    Number(type);
  }
  std::ostream& out_;
  uint64_t entry_count_ = 0;
};

// Random blocks whose weights have a standard deviation of about 0.02.
class RandomBlocks {
 public:
  void Append(GgmlType type, uint64_t element_count, std::string& bytes) {
    if (type == GgmlType::kFloat32) {
      const float one = 1;
      for (uint64_t i = 0; i < element_count; ++i) bytes.append(reinterpret_cast<const char*>(&one), 4);
    } else if (type == GgmlType::kQ6K) {
      for (uint64_t i = 0; i < element_count / 256; ++i) {
        Indices(128 + 64, bytes);  // four low and two high bits each
        bytes.append(16, char{16});
        Scale(0.02f / 18.5f / 16, bytes);
      }
    } else {
      // Q4_0: scale * (index - 8). IQ4_NL: scale * one of 16 values to +-127.
      const float scale = type == GgmlType::kQ4_0 ? 0.02f / 4.6f : 0.02f / 70;
      for (uint64_t i = 0; i < element_count / 32; ++i) {
        Scale(scale, bytes);
        Indices(16, bytes);
      }
    }
  }

 private:
  void Scale(float scale, std::string& bytes) {
    const uint16_t bits = FloatToFloat16(scale);
    bytes.append(reinterpret_cast<const char*>(&bits), 2);
  }
  void Indices(int count, std::string& bytes) {
    for (int i = 0; i < count; i += 8) {
      const uint64_t bits = random_();
      bytes.append(reinterpret_cast<const char*>(&bits), 8);
    }
  }
  std::mt19937_64 random_{1};
};

std::vector<TensorInfo> ListTensors(const engine::ModelConfig& config, GgmlType type) {
  const auto d_model = static_cast<uint64_t>(config.d_model), d_ff = static_cast<uint64_t>(config.d_ff);
  const auto queries = static_cast<uint64_t>(config.query_width());
  const auto keys = static_cast<uint64_t>(config.key_value_width());
  const auto vocabulary = static_cast<uint64_t>(config.vocabulary_size);
  std::vector<TensorInfo> tensors;
  // A tied embedding is the head too, and held like one.
  tensors.push_back(
      {"token_embd.weight", {d_model, vocabulary}, config.tied_embeddings ? GgmlType::kQ6K : type});
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    const std::string block = absl::StrCat("blk.", layer, ".");
    tensors.push_back({block + "attn_norm.weight", {d_model}, GgmlType::kFloat32});
    tensors.push_back({block + "attn_q.weight", {d_model, queries}, type});
    tensors.push_back({block + "attn_k.weight", {d_model, keys}, type});
    tensors.push_back({block + "attn_v.weight", {d_model, keys}, type});
    tensors.push_back({block + "attn_output.weight", {queries, d_model}, type});
    tensors.push_back({block + "ffn_norm.weight", {d_model}, GgmlType::kFloat32});
    tensors.push_back({block + "ffn_gate.weight", {d_model, d_ff}, type});
    tensors.push_back({block + "ffn_up.weight", {d_model, d_ff}, type});
    tensors.push_back({block + "ffn_down.weight", {d_ff, d_model}, type});
  }
  tensors.push_back({"output_norm.weight", {d_model}, GgmlType::kFloat32});
  if (!config.tied_embeddings) {
    tensors.push_back({"output.weight", {d_model, vocabulary}, GgmlType::kQ6K});
  }
  return tensors;
}

void WriteMetadata(const engine::ModelConfig& config, GgmlType type, GgufWriter& writer) {
  auto count = [](int value) { return static_cast<uint32_t>(value); };
  writer.Entry("general.architecture", std::string("llama"));
  writer.Entry("general.name", std::string("random weights"));
  writer.Entry("general.alignment", kAlignment);
  writer.Entry("general.file_type", type == GgmlType::kQ4_0 ? 2u : 25u);
  writer.Entry("llama.block_count", count(config.layer_count()));
  writer.Entry("llama.context_length", count(config.context_length));
  writer.Entry("llama.embedding_length", count(config.d_model));
  writer.Entry("llama.feed_forward_length", count(config.d_ff));
  writer.Entry("llama.attention.head_count", count(config.head_count));
  writer.Entry("llama.attention.head_count_kv", count(config.key_value_head_count));
  writer.Entry("llama.attention.layer_norm_rms_epsilon", static_cast<float>(config.rms_norm_epsilon));
  writer.Entry("llama.rope.dimension_count", count(config.head_size));
  writer.Entry("llama.attention.key_length", count(config.head_size));
  writer.Entry("llama.attention.value_length", count(config.head_size));
  writer.Entry("llama.rope.freq_base", static_cast<float>(config.rope_theta));
  writer.Entry("llama.vocab_size", count(config.vocabulary_size));
  writer.Entry("tokenizer.ggml.model", std::string("none"));
}

void WriteTensors(const std::vector<TensorInfo>& tensors, std::ostream& out) {
  RandomBlocks random;
  std::string bytes;
  for (const TensorInfo& tensor : tensors) {
    // A row of the innermost dimension at a time: whole blocks, little memory.
    const uint64_t rows = tensor.element_count() / tensor.shape[0];
    for (uint64_t row = 0; row < rows; ++row) {
      bytes.clear();
      random.Append(tensor.type, tensor.shape[0], bytes);
      out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    bytes.assign(tensor.padded_bytes() - tensor.bytes(), '\0');
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
}

absl::Status MakeGguf(const std::string& checkpoint, GgmlType type, const std::string& output) {
  const std::string config_path = checkpoint + "/config.json";
  ABSTRACT_ASSIGN_OR_RETURN(const std::string config_text, ReadTextFile(config_path));
  ABSTRACT_ASSIGN_OR_RETURN(const engine::ModelConfig config,
                            engine::ParseModelConfig(config_text, config_path));
  const std::vector<TensorInfo> tensors = ListTensors(config, type);
  for (const TensorInfo& tensor : tensors) {
    if (tensor.type != GgmlType::kFloat32 && tensor.shape[0] % 256 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(tensor.name, ": rows of ", tensor.shape[0], " are not whole blocks of 256"));
    }
  }

  std::ostringstream metadata;
  GgufWriter entries(metadata);
  WriteMetadata(config, type, entries);
  std::ofstream out(output, std::ios::binary);
  GgufWriter writer(out);
  out.write("GGUF", 4);
  writer.Number(kVersion);
  writer.Number<uint64_t>(tensors.size());
  writer.Number<uint64_t>(entries.entry_count());
  out << metadata.str();
  uint64_t offset = 0;
  for (const TensorInfo& tensor : tensors) {
    writer.String(tensor.name);
    writer.Number(static_cast<uint32_t>(tensor.shape.size()));
    for (uint64_t size : tensor.shape) writer.Number(size);
    writer.Number(static_cast<uint32_t>(tensor.type));
    writer.Number(offset);
    offset += tensor.padded_bytes();
  }
  const std::string padding((kAlignment - static_cast<uint64_t>(out.tellp()) % kAlignment) % kAlignment,
                            '\0');
  out << padding;
  WriteTensors(tensors, out);
  if (!out.flush()) return absl::UnknownError("cannot write " + output);
  return absl::OkStatus();
}

}  // namespace
}  // namespace mechinterp::benchmarks

int main(int argc, char** argv) {
  mechinterp::CommandLine command_line(
      "Writes random weights in the shape of a checkpoint as GGUF, for llama-bench.", "abstract-make-gguf");
  const mechinterp::Command app = command_line.root();
  std::string checkpoint, output, type = "q4_0";
  app.AddOption("--model", checkpoint, "Directory of the checkpoint; only its config.json is read")
      .Required();
  app.AddOption("--type", type, "How matrices are held").OneOf({"q4_0", "iq4_nl"});
  app.AddOption("--output", output, "The file to write").Required();
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  using mechinterp::benchmarks::GgmlType;
  const absl::Status status = mechinterp::benchmarks::MakeGguf(
      checkpoint, type == "q4_0" ? GgmlType::kQ4_0 : GgmlType::kIq4Nl, output);
  if (status.ok()) return 0;
  std::cerr << mechinterp::DescribeStatus(status) << "\n";
  return 1;
}
