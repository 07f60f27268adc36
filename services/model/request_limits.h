#ifndef SERVICES_MODEL_REQUEST_LIMITS_H_
#define SERVICES_MODEL_REQUEST_LIMITS_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace mechinterp {

// Edits of one run, each at one site: a thousand sites of an 8B model, four edits each.
inline constexpr int kMostInterventions = 4096;

// How much of what a request may hold: entries of lists, bytes of texts, so that no work begins
// that a few bytes made endless. INVALID_ARGUMENT naming each field that holds more, what it
// holds and what it may. Takes time in proportion to the request's own size. Thread-safe.
absl::Status CheckRequestLimits(const google::protobuf::Message& request);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_REQUEST_LIMITS_H_
