#ifndef CLIENTS_LIB_CONTINUATION_TEXT_H_
#define CLIENTS_LIB_CONTINUATION_TEXT_H_

#include <string>

#include "absl/strings/str_join.h"
#include "mechinterp/v1/model_service.pb.h"

namespace mechinterp {

// A continuation for people: its text, or its token ids, "5 9 17", of a model without a
// tokenizer.
inline std::string TextOrIds(const v1::Continuation& continuation) {
  return continuation.text().empty() ? absl::StrJoin(continuation.token_ids(), " ") : continuation.text();
}

}  // namespace mechinterp

#endif  // CLIENTS_LIB_CONTINUATION_TEXT_H_
