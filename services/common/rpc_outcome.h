#ifndef SERVICES_COMMON_RPC_OUTCOME_H_
#define SERVICES_COMMON_RPC_OUTCOME_H_

#include <chrono>

#include "grpcpp/support/status.h"

namespace mechinterp {

// Which code the client of an RPC sees that a handler ended with `code`. A handler is
// told that nobody waits for it any longer, not why, and says CANCELLED; where the
// deadline was over, that is DEADLINE_EXCEEDED. A client's own clock ends a call up to 1 %
// earlier than `deadline`, as the server knows it: a timeout travels rounded up.
inline grpc::StatusCode OutcomeOf(grpc::StatusCode code, std::chrono::system_clock::time_point begin,
                                  std::chrono::system_clock::time_point deadline,
                                  std::chrono::system_clock::time_point end) {
  constexpr std::chrono::milliseconds kTransit(100);
  const bool is_over = end >= deadline - (deadline - begin) / 100 - kTransit;
  return code == grpc::StatusCode::CANCELLED && is_over ? grpc::StatusCode::DEADLINE_EXCEEDED : code;
}

}  // namespace mechinterp

#endif  // SERVICES_COMMON_RPC_OUTCOME_H_
