#ifndef SERVICES_ENGINE_CHECKPOINT_TENSOR_TABLE_H_
#define SERVICES_ENGINE_CHECKPOINT_TENSOR_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// Every tensor of a model as data: what loads, saves, makes and trains checkpoints goes by
// this list. D d_model, F d_ff, V vocabulary, H query heads, KV key/value heads, Dh head size.

enum class TensorRole {
  kEmbedding,      // [V, D]
  kLn1Gain,        // [D]
  kQuery,          // [H * Dh, D]
  kQueryBias,      // [H * Dh]
  kKey,            // [KV * Dh, D]
  kKeyBias,        // [KV * Dh]
  kValue,          // [KV * Dh, D]
  kValueBias,      // [KV * Dh]
  kQueryNormGain,  // [Dh]
  kKeyNormGain,    // [Dh]
  kOutput,         // [D, H * Dh]
  kOutputBias,     // [D]
  kLn2Gain,        // [D]
  kGate,           // [F, D]
  kGateBias,       // [F]
  kUp,             // [F, D]
  kUpBias,         // [F]
  kDown,           // [D, F]
  kDownBias,       // [D]
  kLnFinalGain,    // [D]
  kUnembedding,    // [V, D]
};

enum class TensorKind {
  kEmbedding,
  kLinear,       // a matrix of a block: rows of activations are multiplied by it; may be quantized
  kUnembedding,  // the output head's, whose format is chosen apart
  kGain,         // of a norm; multiplies
  kBias,         // adds
};

struct TensorInfo {
  TensorRole role = TensorRole::kEmbedding;
  TensorKind kind = TensorKind::kEmbedding;
  int layer = -1;              // -1: of no block
  std::string name;            // in a Hugging Face checkpoint
  std::vector<int64_t> shape;  // as above
  // Whether a checkpoint may lack it: the output head, where it is tied to the embedding.
  bool optional = false;

  int64_t count() const;  // of its numbers
};

// The tensors of one block, in the order in which the forward pass needs them.
std::vector<TensorInfo> LayerTensors(const ModelConfig& config, int layer);
// Those of the whole model: the embedding, the blocks in order, the last norm, the head.
std::vector<TensorInfo> ModelTensors(const ModelConfig& config);
// One that is of no block.
TensorInfo TensorOf(const ModelConfig& config, TensorRole role);

// The tensor that the output head is made from: the embedding where they are tied.
TensorInfo HeadTensor(const ModelConfig& config);

// Numbers of the model, those of tied tensors counted once.
int64_t CountParameters(const ModelConfig& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_TENSOR_TABLE_H_
