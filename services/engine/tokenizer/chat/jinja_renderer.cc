#include "services/engine/tokenizer/chat/jinja_renderer.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/common/subprocess.h"
#include "services/engine/tokenizer/chat/renderer_script.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

constexpr int kNoJinja = 3;  // the script's exit code

std::string RequestOf(const TokenizerConfig& config, const std::vector<Conversation>& conversations) {
  json list = json::array();
  for (const Conversation& conversation : conversations) {
    json messages = json::array();
    for (const ChatMessage& message : conversation.messages) {
      messages.push_back({{"role", std::string(RoleName(message.role))}, {"content", message.content}});
    }
    list.push_back({{"messages", messages}, {"add_generation_prompt", conversation.add_generation_prompt}});
  }
  const json request = {
      {"template", config.chat_template}, {"special_tokens", config.special_tokens}, {"conversations", list}};
  // What is not UTF-8 in a template is no text that it could write.
  return request.dump(-1, ' ', true, json::error_handler_t::replace);
}

absl::StatusOr<std::vector<Rendering>> Parse(const std::string& output, size_t count) {
  const json answer = json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (answer.is_object() && answer.contains("error")) {
    return absl::InvalidArgumentError(absl::StrCat("it is no Jinja template: ", answer["error"].dump()));
  }
  if (!answer.is_object() || !answer.contains("renderings") || answer["renderings"].size() != count) {
    return absl::InvalidArgumentError("its rendering cannot be read");
  }
  std::vector<Rendering> renderings;
  for (const json& text : answer["renderings"]) {
    Rendering rendering;
    if (text.is_string()) rendering.emplace(text.get<std::string>());
    if (text.is_object()) rendering.error = text.value("error", "");
    renderings.push_back(std::move(rendering));
  }
  return renderings;
}

}  // namespace

absl::StatusOr<std::vector<Rendering>> JinjaRenderer::Render(
    const TokenizerConfig& config, const std::vector<Conversation>& conversations) const {
  SubprocessLimits limits;
  limits.time = time_limit_;
  const absl::StatusOr<SubprocessResult> result =
      RunSubprocess({python_, "-c", kRendererScript}, RequestOf(config, conversations), limits);
  if (absl::IsNotFound(result.status()) || (result.ok() && result->exit_code == kNoJinja)) {
    return absl::UnavailableError(absl::StrCat(python_, " with jinja2 is not installed"));
  }
  if (!result.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("rendering it ", result.status().message()));
  }
  if (result->exit_code != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rendering it failed (exit code ", result->exit_code, ")"));
  }
  return Parse(result->output, conversations.size());
}

}  // namespace mechinterp::engine
