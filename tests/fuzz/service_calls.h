#ifndef TESTS_FUZZ_SERVICE_CALLS_H_
#define TESTS_FUZZ_SERVICE_CALLS_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "services/rpc/service_methods.h"

namespace mechinterp::fuzz {

// Calls of a service's methods, as they come from the wire.
//
// An input is lines, each a call: "ListRuns {"page_size": 3}", the request in JSON. One that
// begins with a byte below 32 is a single call: the method's number, then the request's bytes.
// What no method or no message is made of is passed over.
//
// Holds that a refusal has a code that the service documents, that it fits into gRPC's trailers,
// and that no message is longer than clients take. `Answer`: what came of a call.
struct Answer {
  std::string method;
  absl::Status status;
  std::vector<std::string> messages;
};
void RunCalls(
    const std::vector<Method>& methods, std::string_view input,
    const std::function<void(const google::protobuf::Message& request, const Answer& answer)>& check);

}  // namespace mechinterp::fuzz

#endif  // TESTS_FUZZ_SERVICE_CALLS_H_
