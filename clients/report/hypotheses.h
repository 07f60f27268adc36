#ifndef CLIENTS_REPORT_HYPOTHESES_H_
#define CLIENTS_REPORT_HYPOTHESES_H_

#include <string>
#include <vector>

#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

enum class Verdict {
  kSupported,     // the criterion is met, by the whole interval where there is one
  kNotSupported,  // a part of it is missed, by the whole interval
  kUndecided,     // an interval lies about its bound: more prompts would tell
  kNotMeasured,   // the experiment that would tell has not been run
};

// "supported", "not supported", "undecided", "not measured".
std::string VerdictName(Verdict verdict);

// Something that the study set out to find, and what was found.
struct Hypothesis {
  std::string claim;
  std::string criterion;  // what decides, before any number was seen
  Verdict verdict = Verdict::kNotMeasured;
  std::string evidence = {};  // the numbers
};

// All of the study's, in a fixed order; pure, the same for the same results. Shares of depth stand for
// layers of Llama-3-8B-Instruct's 32.
std::vector<Hypothesis> JudgeHypotheses(const v1::Study& study);

}  // namespace mechinterp

#endif  // CLIENTS_REPORT_HYPOTHESES_H_
