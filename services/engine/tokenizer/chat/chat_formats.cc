#include "services/engine/tokenizer/chat/chat_formats.h"

#include <filesystem>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// Every role's turns alike: `before` has the role's name at "ROLE".
ChatFormat SameForEveryRole(std::string name, const std::string& before, const std::string& after,
                            bool trims) {
  const auto turn = [&](std::string_view role) {
    std::string opened = before;
    opened.replace(opened.find("ROLE"), 4, role);
    return ChatTurn{opened, after, trims};
  };
  ChatFormat format;
  format.name = std::move(name);
  format.system = turn("system");
  format.user = turn("user");
  format.assistant = turn("assistant");
  format.opening = format.assistant.before;
  format.later_system = format.system;
  return format;
}

ChatFormat Llama3() {
  ChatFormat format =
      SameForEveryRole("llama3", "<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", true);
  format.begin = "<|begin_of_text|>";
  format.tokens = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};
  return format;
}

ChatFormat Llama31() {
  ChatFormat format = Llama3();
  format.name = "llama3.1";
  format.system.before += "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
  format.default_system = "";
  return format;
}

ChatFormat ChatMl(std::string name = "chatml", std::optional<std::string> default_system = std::nullopt) {
  ChatFormat format = SameForEveryRole(std::move(name), "<|im_start|>ROLE\n", "<|im_end|>\n", false);
  format.default_system = std::move(default_system);
  format.tokens = {"<|im_start|>", "<|im_end|>"};
  return format;
}

ChatFormat Qwen3() {
  ChatFormat format = ChatMl("qwen3");
  format.takes_reasoning = false;
  return format;
}

ChatFormat Zephyr() {
  ChatFormat format = SameForEveryRole("zephyr", "<|ROLE|>\n", "</s>\n", false);
  format.tokens = {"</s>"};
  return format;
}

// Of Llama 2 and Mistral: [INST] ... [/INST], the system message within one of them.
ChatFormat Instructions(std::string name, ChatTurn user, ChatTurn assistant, ChatTurn system,
                        SystemPlacement placement) {
  ChatFormat format;
  format.name = std::move(name);
  format.begin = "<s>";
  format.user = std::move(user);
  format.assistant = std::move(assistant);
  format.system = std::move(system);
  format.system_placement = placement;
  format.alternates = true;
  format.tokens = {"<s>", "</s>"};
  return format;
}

ChatFormat Llama2() {
  ChatFormat format = Instructions("llama2", {"<s>[INST] ", " [/INST]", true}, {" ", " </s>", true},
                                   {"<<SYS>>\n", "\n<</SYS>>\n\n"}, SystemPlacement::kFirstUserTurn);
  format.begin = "";  // each of a user's turns has it
  return format;
}

ChatFormat WithMarks(ChatFormat format) {
  format.tokens.insert(format.tokens.end(), {"[INST]", "[/INST]"});
  return format;
}

ChatFormat DeepSeekR1() {
  ChatFormat format;
  format.name = "deepseek-r1";
  format.begin = "<｜begin▁of▁sentence｜>";
  format.user.before = "<｜User｜>";
  format.assistant = {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"};
  format.opening = "<｜Assistant｜><think>\n";
  format.takes_reasoning = false;
  format.tokens = {format.begin, format.user.before, format.assistant.before, format.assistant.after};
  return format;
}

constexpr std::pair<const char*, SystemPlacement> kPlacements[] = {
    {"own_turn", SystemPlacement::kOwnTurn},
    {"first_user_turn", SystemPlacement::kFirstUserTurn},
    {"last_user_turn", SystemPlacement::kLastUserTurn},
    {"none", SystemPlacement::kNone}};

json TurnJson(const ChatTurn& turn) {
  return {{"before", turn.before}, {"after", turn.after}, {"trim", turn.trims}};
}

class FormatReader {
 public:
  FormatReader(const json& root, const std::string& path) : root_(root), path_(path) {}

  absl::StatusOr<ChatFormat> Read() {
    const std::set<std::string> needed = {"user", "assistant"};
    ChatFormat format;
    format.name = std::filesystem::path(path_).stem().string();
    for (const auto& [key, value] : root_.items()) ABSTRACT_RETURN_IF_ERROR(ReadKey(key, value, format));
    for (const std::string& key : needed) {
      if (!root_.contains(key)) return Malformed(key, "is missing");
    }
    const bool has_system = root_.contains("system") || format.default_system || format.later_system;
    if (!root_.contains("system_placement") && !has_system) format.system_placement = SystemPlacement::kNone;
    if (format.default_system && format.system_placement != SystemPlacement::kOwnTurn) {
      return Malformed("default_system", "needs the system_placement own_turn");
    }
    if (format.later_system && format.alternates) return Malformed("later_system", "contradicts alternates");
    return format;
  }

 private:
  absl::Status Malformed(const std::string& key, const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": '", key, "' ", what));
  }

  absl::Status ReadKey(const std::string& key, const json& value, ChatFormat& format) const {
    if (key == "begin") return ReadText(key, value, format.begin);
    if (key == "opening") return ReadText(key, value, format.opening);
    if (key == "system") return ReadTurn(key, value, format.system);
    if (key == "user") return ReadTurn(key, value, format.user);
    if (key == "assistant") return ReadTurn(key, value, format.assistant);
    if (key == "later_system") return ReadTurn(key, value, format.later_system.emplace());
    if (key == "default_system") return ReadText(key, value, format.default_system.emplace());
    if (key == "alternates") return ReadFlag(key, value, format.alternates);
    if (key == "needs_user") return ReadFlag(key, value, format.needs_user);
    if (key == "takes_reasoning") return ReadFlag(key, value, format.takes_reasoning);
    if (key == "system_placement") return ReadPlacement(key, value, format.system_placement);
    if (key != "tokens") return Malformed(key, "is no part of a chat format");
    if (!value.is_array()) return Malformed(key, "must be a list of texts");
    for (const json& token : value) {
      ABSTRACT_RETURN_IF_ERROR(ReadText(key, token, format.tokens.emplace_back()));
    }
    return absl::OkStatus();
  }

  absl::Status ReadText(const std::string& key, const json& value, std::string& text) const {
    if (!value.is_string()) return Malformed(key, "must be a text");
    text = value.get<std::string>();
    return absl::OkStatus();
  }

  absl::Status ReadFlag(const std::string& key, const json& value, bool& flag) const {
    if (!value.is_boolean()) return Malformed(key, "must be true or false");
    flag = value.get<bool>();
    return absl::OkStatus();
  }

  absl::Status ReadTurn(const std::string& key, const json& value, ChatTurn& turn) const {
    if (!value.is_object()) return Malformed(key, "must be an object with before, after, trim");
    for (const auto& [part, content] : value.items()) {
      const std::string path = absl::StrCat(key, ".", part);
      if (part == "before") {
        ABSTRACT_RETURN_IF_ERROR(ReadText(path, content, turn.before));
      } else if (part == "after") {
        ABSTRACT_RETURN_IF_ERROR(ReadText(path, content, turn.after));
      } else if (part == "trim") {
        ABSTRACT_RETURN_IF_ERROR(ReadFlag(path, content, turn.trims));
      } else {
        return Malformed(path, "is no part of a turn");
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadPlacement(const std::string& key, const json& value, SystemPlacement& placement) const {
    for (const auto& [name, meaning] : kPlacements) {
      if (value != name) continue;
      placement = meaning;
      return absl::OkStatus();
    }
    return Malformed(key, "must be own_turn, first_user_turn, last_user_turn or none");
  }

  const json& root_;
  const std::string& path_;
};

}  // namespace

const std::vector<ChatFormat>& KnownChatFormats() {
  static const auto& formats = *new std::vector<ChatFormat>{
      Llama3(),
      Llama31(),
      Llama2(),
      ChatMl(),
      ChatMl("qwen2", "You are a helpful assistant."),
      ChatMl("qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
      Qwen3(),
      ChatMl("smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
      Instructions("mistral-v1", {" [INST] ", " [/INST]"}, {" ", "</s>"}, {"", "\n\n"},
                   SystemPlacement::kFirstUserTurn),
      WithMarks(Instructions("mistral-v3", {"[INST] ", "[/INST]"}, {" ", "</s>", true}, {"", "\n\n"},
                             SystemPlacement::kLastUserTurn)),
      WithMarks(Instructions("mistral-v3-tekken", {"[INST]", "[/INST]"}, {"", "</s>"}, {"", "\n\n"},
                             SystemPlacement::kLastUserTurn)),
      Zephyr(),
      DeepSeekR1(),
  };
  return formats;
}

const ChatFormat* FindChatFormat(std::string_view name) {
  for (const ChatFormat& format : KnownChatFormats()) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

std::string ChatFormatNames() {
  return absl::StrJoin(KnownChatFormats(), ", ",
                       [](std::string* out, const ChatFormat& format) { absl::StrAppend(out, format.name); });
}

absl::StatusOr<ChatFormat> LoadChatFormat(const std::string& path) {
  constexpr uint64_t kMaxBytes = 1 << 20;
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxBytes));
  ABSTRACT_ASSIGN_OR_RETURN(const json root, ParseJsonObject(text, path));
  return FormatReader(root, path).Read();
}

std::string ChatFormatJson(const ChatFormat& format) {
  json root = {{"begin", format.begin},           {"system", TurnJson(format.system)},
               {"user", TurnJson(format.user)},   {"assistant", TurnJson(format.assistant)},
               {"opening", format.opening},       {"alternates", format.alternates},
               {"needs_user", format.needs_user}, {"takes_reasoning", format.takes_reasoning},
               {"tokens", format.tokens}};
  for (const auto& [name, placement] : kPlacements) {
    if (placement == format.system_placement) root["system_placement"] = name;
  }
  if (format.default_system) root["default_system"] = *format.default_system;
  if (format.later_system) root["later_system"] = TurnJson(*format.later_system);
  return root.dump(1, ' ', false, json::error_handler_t::replace);
}

}  // namespace mechinterp::engine
