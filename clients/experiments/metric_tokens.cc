#include "clients/experiments/metric_tokens.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

absl::Status ReadTexts(const nlohmann::json& document, const std::string& field, const std::string& path,
                       std::vector<std::string>& texts) {
  if (!document.contains(field)) return absl::OkStatus();
  const nlohmann::json& list = document[field];
  if (!list.is_array()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", field, " must be a list"));
  texts.clear();
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", field, "[", i, "] must be a text"));
    }
    texts.push_back(list[i].get<std::string>());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::set<uint32_t>> FirstTokens(ModelClient& client,
                                               const std::vector<std::string>& openings) {
  std::set<uint32_t> tokens;
  for (const std::string& opening : openings) {
    v1::TokenizeRequest request;
    request.mutable_prompt()->set_text(opening);
    request.set_omit_begin_of_text(true);
    ABSTRACT_ASSIGN_OR_RETURN(const v1::TokenizeResponse response, client.Tokenize(request));
    if (response.ids_size() > 0) tokens.insert(response.ids(0));
  }
  return tokens;
}

std::vector<uint32_t> Difference(const std::set<uint32_t>& these, const std::set<uint32_t>& without) {
  std::vector<uint32_t> left;
  std::set_difference(these.begin(), these.end(), without.begin(), without.end(), std::back_inserter(left));
  return left;
}

absl::Status EmptySetError(const std::string& kind, const std::vector<std::string>& openings) {
  return absl::FailedPreconditionError(absl::StrCat("no first token of the ", kind, " openings (",
                                                    absl::StrJoin(openings, ", "), ") is ", kind,
                                                    " only; give others with --", kind, "-opening"));
}

}  // namespace

absl::StatusOr<Openings> LoadOpenings(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(path));
  if (!document.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  Openings openings;
  ABSTRACT_RETURN_IF_ERROR(ReadTexts(document, "refusal_openings", path, openings.refusal));
  ABSTRACT_RETURN_IF_ERROR(ReadTexts(document, "compliance_openings", path, openings.compliance));
  return openings;
}

absl::StatusOr<MetricTokens> FindMetricTokens(ModelClient& client, const Openings& openings) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::set<uint32_t> refusal, FirstTokens(client, openings.refusal));
  ABSTRACT_ASSIGN_OR_RETURN(const std::set<uint32_t> compliance, FirstTokens(client, openings.compliance));
  MetricTokens tokens{Difference(refusal, compliance), Difference(compliance, refusal)};
  if (tokens.refusal.empty()) return EmptySetError("refusal", openings.refusal);
  if (tokens.compliance.empty()) return EmptySetError("compliance", openings.compliance);
  return tokens;
}

v1::MetricOptions MetricOptionsOf(const MetricTokens& tokens) {
  v1::MetricOptions options;
  options.mutable_refusal_token_ids()->Add(tokens.refusal.begin(), tokens.refusal.end());
  options.mutable_compliance_token_ids()->Add(tokens.compliance.begin(), tokens.compliance.end());
  return options;
}

}  // namespace mechinterp
