#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_FORMATS_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_FORMATS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/chat/chat_format.h"

namespace mechinterp::engine {

// The formats that have a name, each as the published template writes it of
//   llama3             Meta-Llama-3-8B-Instruct
//   llama3.1           Llama-3.1 to 3.3, with the date that they write where none is
//                      given, 26 Jul 2024: a prompt means the same every day
//   llama2             Llama-2-7b-chat-hf
//   chatml             Qwen3-Coder, Hermes 2; without begin-of-text
//   qwen2, qwen2.5     Qwen2-7B-Instruct, Qwen2.5-7B-Instruct: chatml with their system
//                      messages
//   qwen3              Qwen3-8B, which lets the answer begin with its reasoning
//   smollm2            SmolLM2-1.7B-Instruct, likewise
//   mistral-v1         Mistral-7B-Instruct-v0.1 and v0.2 as mistral-common writes them
//   mistral-v3         Mistral-7B-Instruct-v0.3
//   mistral-v3-tekken  Mistral-Nemo-Instruct-2407
//   zephyr             zephyr-7b-beta, TinyLlama-1.1B-Chat
//   deepseek-r1        DeepSeek-R1-Distill-Llama and -Qwen
const std::vector<ChatFormat>& KnownChatFormats();

// Null for a name that none has.
const ChatFormat* FindChatFormat(std::string_view name);

// Their names, for messages: "llama3, llama3.1, ...".
std::string ChatFormatNames();

// A format from a JSON file:
//   {"begin": "<s>",
//    "system": {"before": "<|system|>\n", "after": "</s>\n", "trim": false},
//    "user": {...}, "assistant": {...},
//    "opening": "<|assistant|>\n",
//    "system_placement": "own_turn",     or first_user_turn, last_user_turn, none
//    "default_system": "Be kind.",
//    "later_system": {...},
//    "alternates": false, "needs_user": false, "takes_reasoning": true,
//    "tokens": ["<s>", "</s>"]}
// as in ChatFormat. User and assistant are needed; it is named after the file. Errors name
// the file: NotFound, or InvalidArgument naming the key too.
absl::StatusOr<ChatFormat> LoadChatFormat(const std::string& path);

// The text of such a file, which stands for everything that the format writes: equal
// texts, equal prompts.
std::string ChatFormatJson(const ChatFormat& format);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_FORMATS_H_
