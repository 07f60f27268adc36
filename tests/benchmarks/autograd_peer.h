#ifndef TESTS_BENCHMARKS_AUTOGRAD_PEER_H_
#define TESTS_BENCHMARKS_AUTOGRAD_PEER_H_

#include <memory>

#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::benchmarks {

// What attribution takes by libtorch's autograd: a Llama of the same shape with random fp32 weights,
// written in its operations; two forward passes and one back, to the gradient of a logit difference at
// every head's z and every neuron, as TransformerLens takes it. Not thread-safe.
class AutogradPeer {
 public:
  // Takes the memory of the shape's weights in fp32. Of the shape's layers all are alike.
  AutogradPeer(const engine::ModelConfig& config, int threads);
  ~AutogradPeer();

  // Scores of heads and neurons of a random pair of prompts of so many tokens; their sum, so that nothing
  // is left out.
  double Attribute(int prompt_tokens);

 private:
  struct Network;
  std::unique_ptr<Network> network_;
};

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_AUTOGRAD_PEER_H_
