#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_TEMPLATE_PROOF_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_TEMPLATE_PROOF_H_

#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/chat/chat_format.h"
#include "services/engine/tokenizer/chat/jinja_renderer.h"

namespace mechinterp::engine {

// Which format a published template is: found by what it writes for a fixed list of
// conversations, whatever its text. Pure functions.

// The conversations that a template is asked for: some from which an unknown format is
// solved, and the battery that a format must pass.
const std::vector<Conversation>& ProofConversations();

// The known format, or else a new one called "published", that writes character by
// character what the template does (`renderings`, of ProofConversations) for every
// conversation of the battery that the format takes; one that it does not take is
// refused where it is asked for. Errors: InvalidArgument telling in which conversation no
// format does.
absl::StatusOr<ChatFormat> FindProvenFormat(const std::vector<Rendering>& renderings);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_TEMPLATE_PROOF_H_
