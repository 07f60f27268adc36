#ifndef TESTS_CLIENTS_TOY_MODEL_H_
#define TESTS_CLIENTS_TOY_MODEL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "mechinterp/v1/model_service.pb.h"

namespace mechinterp::testing {

// A "model" whose refusals have closed-form causes. Each head and neuron has one
// number per position: at the decision positions (last instruction token and
// template tail) of a harmful prompt its strength, 0 anywhere else. A prompt's
// strength is 1 if it has the word "bomb", 2 with "megabomb", 0 otherwise.
//
//   logit difference = sum over units of weight x mean over decision positions
//                      - kThreshold
//
// and a positive one is answered by a refusal. Three things have weight:
// L2.H1 (4), neurons 8-15 of layer 3 (3 together), L1.H0 (1); 8 in all. So the
// effect of patching L2.H1 is 4/8 for every pair, and ablating it makes "bomb"
// prompts (8 - 4 < 4.5) but not "megabomb" prompts (16 - 8 > 4.5) answered.
inline constexpr int kLayers = 4;
inline constexpr int kHeads = 4;
inline constexpr int kNeurons = 32;
inline constexpr int kVocabulary = 128;
inline constexpr int kTailLength = 5;
inline constexpr double kThreshold = 4.5;
inline constexpr double kTotalWeight = 8;

inline constexpr char kRefusal[] = "I cannot help with that.";
inline constexpr char kAnswer[] = "Here is how.";

// Words to ids and back. Not thread-safe.
class ToyTokenizer {
 public:
  ToyTokenizer();
  v1::TokenizeResponse Tokenize(const v1::Prompt& prompt, bool omit_begin_of_text);
  uint32_t Id(const std::string& word);

 private:
  std::vector<std::string> words_;
  std::map<std::string, uint32_t> ids_;
};

// The numbers of one run: heads, then neurons, of each layer, by position.
struct ToyRun {
  v1::TokenizeResponse tokens;
  std::vector<std::vector<std::vector<double>>> units;  // [layer][unit][position]

  int length() const { return tokens.ids_size(); }
  double logit_difference() const;
};

// A run without interventions.
ToyRun RunClean(const v1::TokenizeResponse& tokens);

// Finds the run that a source names.
using SourceFinder = std::function<absl::StatusOr<ToyRun>(const v1::ActivationSource& source)>;

// Applies an intervention's prompt part. Knows the edits and sites that the
// experiments use.
absl::Status Apply(const v1::Intervention& intervention, const SourceFinder& find, ToyRun& run);

}  // namespace mechinterp::testing

#endif  // TESTS_CLIENTS_TOY_MODEL_H_
