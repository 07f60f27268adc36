#ifndef CLIENTS_EXPERIMENTS_PUBLISHED_SCORES_H_
#define CLIENTS_EXPERIMENTS_PUBLISHED_SCORES_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "mechinterp/v1/direction.pb.h"

namespace mechinterp {

// What others measured of one candidate direction.
struct PublishedScore {
  int position = 0;  // from the prompt's end
  int layer = 0;
  double bypass = 0;
  double induce = 0;
  double kl = 0;
};

// Reads a table with a line for each candidate: position, layer, bypass, induce and KL with tabs
// between, after a line of their names; lines that begin with # are skipped. Errors name the file and
// the line: NotFound, InvalidArgument.
absl::StatusOr<std::vector<PublishedScore>> LoadPublishedScores(const std::string& path);

// Whether a model by this name and of so many layers is the one of data/published.
bool IsPublishedModel(const std::string& name, uint32_t layer_count);

// How the candidates' scores rank beside theirs. Nothing where fewer than two are of both.
std::optional<v1::PublishedAgreement> AgreementWith(const std::vector<PublishedScore>& published,
                                                    const v1::DirectionResults& results);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_PUBLISHED_SCORES_H_
