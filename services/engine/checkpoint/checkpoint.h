#ifndef SERVICES_ENGINE_CHECKPOINT_CHECKPOINT_H_
#define SERVICES_ENGINE_CHECKPOINT_CHECKPOINT_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/checkpoint/safetensors.h"

namespace mechinterp::engine {

// A model directory in Hugging Face layout: config.json, generation_config.json
// for its stop tokens if there is one, and model.safetensors or else the shards that
// model.safetensors.index.json lists. The tensors stay in the mapped files. Immutable: safe from any thread.
class Checkpoint {
 public:
  // Errors: NotFound (directory, config, weights or a shard missing), FailedPrecondition (an
  // adapter beside the model), and those of ParseModelConfig, SafetensorsFile::Open and
  // FindUnusedTensors. Reads the head and the embedding where config.json ties them and the
  // files have both.
  static absl::StatusOr<Checkpoint> Open(const std::string& directory);

  const std::string& directory() const { return directory_; }
  // The directory's own name.
  std::string name() const;
  // As config.json says, but that a head that differs from the embedding is not tied to it.
  const ModelConfig& config() const { return config_; }
  // What whoever loads the model should be told of its files; nothing that keeps it from
  // being computed.
  const std::vector<std::string>& remarks() const { return remarks_; }

  // A tensor of exactly this shape. Errors: NotFound (no such tensor),
  // InvalidArgument (another shape, or a type that is not floating point); both
  // name the tensor.
  absl::StatusOr<TensorView> Tensor(absl::string_view name, absl::Span<const int64_t> shape) const;
  // Whatever is stored under a name; null if nothing is.
  const TensorView* Find(absl::string_view name) const;
  bool Has(absl::string_view name) const { return Find(name) != nullptr; }
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  // config.json as it stands.
  const std::string& config_text() const { return config_text_; }

  // Paths of the configuration's files and the weights'.
  std::vector<std::string> files() const;

 private:
  absl::Status ReadConfig();
  absl::Status OpenFiles();
  absl::Status OpenShards(const std::string& index);
  absl::Status AddFile(const std::string& name);
  absl::Status SettleHead();
  absl::Status CheckTensorNames();
  // Part of a message: the safetensors files here that the index does not list.
  std::string DescribeUnlistedShards() const;

  std::string directory_;
  std::string config_text_;
  ModelConfig config_;
  std::vector<std::string> remarks_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::map<std::string, TensorView, std::less<>> tensors_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_CHECKPOINT_H_
