#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_PUBLISHED_TEMPLATES_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_PUBLISHED_TEMPLATES_H_

#include <string>

#include "services/engine/tokenizer/chat/chat_format.h"
#include "services/engine/tokenizer/tokenizer_config.h"

namespace mechinterp::engine {

// Published templates that were proven once (by FindProvenFormat) to be a known format:
// their fingerprints serve where nothing renders them, and save rendering them elsewhere.

// SHA-256, in hex, of a template's text with line ends as \n and without the one at its
// end, which Jinja drops.
std::string TemplateFingerprint(std::string text);

// Null for a template that is not among them, or whose tokens have other texts here.
const ChatFormat* FindPublishedFormat(const TokenizerConfig& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_PUBLISHED_TEMPLATES_H_
