#ifndef CLIENTS_REPORT_WORDING_H_
#define CLIENTS_REPORT_WORDING_H_

#include <string>

#include "mechinterp/v1/direction.pb.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// How results are told to people, in tables of the tool and in reports.

// "direction ablated"; "unchanged" for none.
std::string EditName(v1::DirectionEdit edit);
// "95.0 % [79.6, 99.1]"
std::string RateInWords(const v1::Rate& rate);
// "0.512 [0.430, 0.601]"
std::string EstimateInWords(const v1::Estimate& estimate);

}  // namespace mechinterp

#endif  // CLIENTS_REPORT_WORDING_H_
