#ifndef TESTS_SERVICES_ENGINE_RANDOM_CHECKPOINT_H_
#define TESTS_SERVICES_ENGINE_RANDOM_CHECKPOINT_H_

#include <string>

namespace mechinterp::engine {

// A random checkpoint of random shape, written to a folder that is removed again.
class RandomCheckpoint {
 public:
  explicit RandomCheckpoint(unsigned seed);
  ~RandomCheckpoint();
  const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
};

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_RANDOM_CHECKPOINT_H_
