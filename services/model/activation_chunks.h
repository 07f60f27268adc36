#ifndef SERVICES_MODEL_ACTIVATION_CHUNKS_H_
#define SERVICES_MODEL_ACTIVATION_CHUNKS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "grpcpp/support/byte_buffer.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/engine/interventions/intervention.h"
#include "services/engine/model.h"

namespace mechinterp {

// Activations as they travel: a header that lists them, then their bytes in chunks of at most 1 MiB,
// each with its sum. A chunk is field `chunk_field` (Response::kChunkFieldNumber) of a stream's
// messages, which are written by hand here: so their bytes are copied once, when they are encoded.

// Prompt, and what follows in which order, as elements of `type`.
v1::RunHeader BuildActivationHeader(const engine::Model& model, const std::string& self_check_id,
                                    const engine::RecordedRun& run, v1::DataType type);

// Passes the fp32 values of an activation of this index on in chunks, until `write` returns false.
void ForEachChunkOf(uint32_t index, const std::vector<float>& values, int chunk_field,
                    const std::function<bool(grpc::ByteBuffer message)>& write);

// A run's activations in chunks, in the header's order. For one thread at a time.
class ChunkReader {
 public:
  // `config` must outlive it.
  ChunkReader(const engine::ModelConfig& config, std::shared_ptr<const engine::RecordedRun> run,
              v1::DataType type, int chunk_field);
  ChunkReader(const ChunkReader&) = delete;
  ChunkReader& operator=(const ChunkReader&) = delete;
  // The message with the next chunk; nothing after the last.
  std::optional<grpc::ByteBuffer> Next();

 private:
  void Open();  // the next activation

  const engine::ModelConfig& config_;
  const std::shared_ptr<const engine::RecordedRun> run_;
  const v1::DataType type_;
  const int chunk_field_;
  std::vector<engine::HookSite> sites_;
  size_t index_ = 0;         // of the activation that is read
  size_t offset_ = 0;        // in its values
  std::vector<float> room_;  // its values, where the public order is another one
  const std::vector<float>* values_ = nullptr;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_ACTIVATION_CHUNKS_H_
