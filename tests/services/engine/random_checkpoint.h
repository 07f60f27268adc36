#ifndef TESTS_SERVICES_ENGINE_RANDOM_CHECKPOINT_H_
#define TESTS_SERVICES_ENGINE_RANDOM_CHECKPOINT_H_

#include <string>

namespace mechinterp::engine {

// What a random checkpoint is of.
struct RandomFamily {
  std::string architecture = "LlamaForCausalLM";
  bool biases = false;                // attention_bias and mlp_bias
  int window = 0;                     // sliding_window; in Qwen's families from the second layer on
  std::string rope_scaling = "null";  // as in config.json
  int max_positions = 64;
};

// A random checkpoint of random shape, written to a folder that is removed again.
class RandomCheckpoint {
 public:
  explicit RandomCheckpoint(unsigned seed, const RandomFamily& family = {});
  ~RandomCheckpoint();
  const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
};

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_RANDOM_CHECKPOINT_H_
