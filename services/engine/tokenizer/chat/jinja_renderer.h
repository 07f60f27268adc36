#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_JINJA_RENDERER_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_JINJA_RENDERER_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/engine/tokenizer/chat/chat_format.h"
#include "services/engine/tokenizer/tokenizer_config.h"

namespace mechinterp::engine {

struct Conversation {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = true;
};

// What a template writes; nothing where it raises an error, which says what of.
struct Rendering : std::optional<std::string> {
  using std::optional<std::string>::optional;
  std::string error;
};

// Renders Jinja chat templates as Hugging Face transformers does, by Python's jinja2 in a
// process of its own: sandboxed, without files, network and children, bounded in time,
// memory and output. The day that templates ask for is always 26 July 2024.
class JinjaRenderer {
 public:
  // `python` is looked up in $PATH.
  explicit JinjaRenderer(std::string python = "python3", absl::Duration time_limit = absl::Seconds(10))
      : python_(std::move(python)), time_limit_(time_limit) {}

  // The checkpoint's template, for each conversation. Thread-safe; waits.
  // Errors: Unavailable when there is no Python with jinja2; InvalidArgument when the
  // template is none, or exceeds a limit.
  absl::StatusOr<std::vector<Rendering>> Render(const TokenizerConfig& config,
                                                const std::vector<Conversation>& conversations) const;

 private:
  std::string python_;
  absl::Duration time_limit_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_JINJA_RENDERER_H_
