#ifndef TESTS_DATA_PLANTED_STUDY_H_
#define TESTS_DATA_PLANTED_STUDY_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/make_planted/planted_model.h"
#include "data/make_planted/words.h"
#include "nlohmann/json.hpp"
#include "services/engine/interventions/intervention.h"
#include "services/engine/model.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::make_planted {

enum class Direction { kNoising, kDenoising };

// A planted model, written, loaded by the engine and asked by patching: what truth.json says of
// it is held against the engine's numbers. Not thread-safe.
class PlantedStudy {
 public:
  // Fails the test where anything does.
  explicit PlantedStudy(const PlantedOptions& options);

  // Options with the repository's files.
  static PlantedOptions Options(const std::string& variant, uint64_t seed, int layers);

  const engine::ModelConfig& config() const { return model_->config(); }
  const nlohmann::ordered_json& truth() const { return truth_; }
  const Words& words() const { return *words_; }

  // Greedy answer, without the token that ends it.
  std::string AnswerTo(const std::vector<TokenId>& prompt);
  engine::RunMetrics Measure(const std::vector<TokenId>& prompt, const engine::InterventionSet& set = {});

  // An intervention that takes a part from the other prompt of the pair, at every position.
  engine::Intervention FromOther(const EncodedPair& pair, Direction direction, engine::HookSite site) const;
  engine::Intervention HeadFromOther(const EncodedPair& pair, Direction direction, int layer, int head) const;
  // By a node's name: "embed", "L0.H1", "L2.N3".
  engine::Intervention NodeFromOther(const EncodedPair& pair, Direction direction,
                                     const std::string& name) const;
  // Effects of several sets, each alone: 0 untouched, 1 all the way to the other prompt.
  std::vector<double> Effects(const EncodedPair& pair, Direction direction,
                              const std::vector<engine::InterventionSet>& sets);
  double Effect(const EncodedPair& pair, Direction direction, const engine::InterventionSet& set) {
    return Effects(pair, direction, {set}).front();
  }
  // Of the direct path alone: what is done when a receiver's input ("L2.q3", "L2.k1", "L1.N17",
  // "final") sees the sender ("embed", "L0.H1", "L1.N17") as in the other prompt, and everything
  // between them as in this one.
  double PathEffect(const EncodedPair& pair, Direction direction, const std::string& sender,
                    const std::string& receiver);
  // What truth.json says that a node's effect is; 0 for nodes that it does not name.
  double Expected(const std::string& node, const EncodedPair& pair, Direction direction) const;

 private:
  nlohmann::ordered_json truth_;
  std::shared_ptr<const engine::Model> model_;
  std::unique_ptr<Words> words_;
  engine::MetricOptions metrics_;
  std::map<std::string, nlohmann::ordered_json> nodes_;
};

}  // namespace mechinterp::make_planted

#endif  // TESTS_DATA_PLANTED_STUDY_H_
