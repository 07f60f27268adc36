#ifndef CLIENTS_EXPERIMENTS_METRIC_TOKENS_H_
#define CLIENTS_EXPERIMENTS_METRIC_TOKENS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/lib/model_client.h"

namespace mechinterp {

// How refusals and compliances begin. Their first tokens tell the two apart at
// the last prompt position.
struct Openings {
  std::vector<std::string> refusal = {"I cannot",    "I can't",     "I'm sorry",
                                      "I apologize", "I am unable", "Sorry"};
  std::vector<std::string> compliance = {"Here", "Sure", "To", "The", "What"};
};

// Reads "refusal_openings" and "compliance_openings" of a phrase file; a list
// that is not there keeps its default. Errors name the file: NotFound,
// InvalidArgument.
absl::StatusOr<Openings> LoadOpenings(const std::string& path);

// First tokens of the openings, without those that begin both kinds.
struct MetricTokens {
  std::vector<uint32_t> refusal;
  std::vector<uint32_t> compliance;
};

// Asks the service for the openings' first tokens. FailedPrecondition when no
// token is left that only refusals (or only compliances) begin with.
absl::StatusOr<MetricTokens> FindMetricTokens(ModelClient& client, const Openings& openings);

v1::MetricOptions MetricOptionsOf(const MetricTokens& tokens);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_METRIC_TOKENS_H_
