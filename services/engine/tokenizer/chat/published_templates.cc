#include "services/engine/tokenizer/chat/published_templates.h"

#include <openssl/evp.h>

#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/str_replace.h"
#include "services/engine/tokenizer/chat/chat_formats.h"

namespace mechinterp::engine {
namespace {

struct PublishedTemplate {
  const char* fingerprint;
  const char* format;
  // What the tokens that the template writes by these names must be; "": it writes none.
  const char* bos_token;
  const char* eos_token;
};

constexpr char kLlamaBegin[] = "<|begin_of_text|>";
constexpr char kDeepSeekBegin[] = "<｜begin▁of▁sentence｜>";

constexpr std::array<PublishedTemplate, 17> kPublished = {{
    // Meta-Llama-3-8B-Instruct; before May 2024, which always opens an answer
    {"ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122", "llama3", kLlamaBegin, ""},
    {"b48c47f6443892716176eb200bf4ef108f64e06ca26ed0fa8ebc0a4b3992fcb2", "llama3", kLlamaBegin, ""},
    // Llama-3.1-8B-Instruct, Llama-3.3-70B-Instruct; Llama-3.2-3B-Instruct
    {"93c0e9aa3629bbd77e68dbc0f5621f6e6b23aa8d74b932595cdb8d64684526d7", "llama3.1", kLlamaBegin, ""},
    {"d82792f95932f1c9cef5c4bd992f171225e3bf8c7b609b4557c9e1ec96be819f", "llama3.1", kLlamaBegin, ""},
    // Llama-2-7b-chat-hf and CodeLlama-7b-Instruct-hf
    {"e8d5b5a546d3f19df16a5320c614fab05bdc4edd50e850f1afd947b503ea41cf", "llama2", "<s>", "</s>"},
    {"ea2472f29dbd93c3eb696795f6403228fcc4b775518869c771f83fbae5c11dbf", "llama2", "<s>", "</s>"},
    // Qwen3-Coder-30B-A3B-Instruct; dolphin-2.5-mixtral-8x7b and others
    {"eae48a3307931acb10a6fce475a36b711709672ea79ee1a9bc52f083d8b0a2af", "chatml", "", ""},
    {"58c1a1f04baa7adaeaba1f90267c3d57d9396f0c1f0129bdde9e76d3c6784af7", "chatml", "", ""},
    // Qwen2-7B-Instruct
    {"793202280c0910ab26bc6eb57c8212c2417324c6d8c4efd0d10d59092ab3e3eb", "qwen2", "", ""},
    // Qwen2.5-7B-Instruct
    {"55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a", "qwen2.5", "", ""},
    // Qwen3-0.6B
    {"87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5", "qwen3", "", ""},
    // SmolLM2-1.7B-Instruct
    {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", "smollm2", "", ""},
    // Mistral-7B-Instruct-v0.3
    {"cafb64e0e9e5fd2503054b3479593fae39cbdfd52338ce8af9bb4664a8eb05bd", "mistral-v3", "<s>", "</s>"},
    // Mistral-Nemo-Instruct-2407, two versions
    {"e7deee034838db2bfc7487788a3013d8a307ab69f72f3c54a85f06fd76007d4e", "mistral-v3-tekken", "<s>", "</s>"},
    {"c7a94f505398612940c13ee95070d0d152bcb7b4afbd74a06ff148a82a02851c", "mistral-v3-tekken", "<s>", "</s>"},
    // zephyr-7b-beta, TinyLlama-1.1B-Chat-v1.0
    {"66291cf0045c2425a3a667cf3cbb7af2b11f09e025c02f97245323ab79119362", "zephyr", "", "</s>"},
    // DeepSeek-R1-Distill-Llama-8B, DeepSeek-R1-Distill-Qwen-32B
    {"56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f", "deepseek-r1", kDeepSeekBegin, ""},
}};

bool Agrees(const TokenizerConfig& config, const char* name, std::string_view text) {
  if (text.empty()) return true;
  const auto found = config.special_tokens.find(name);
  return found != config.special_tokens.end() && found->second == text;
}

}  // namespace

std::string TemplateFingerprint(std::string text) {
  text = absl::StrReplaceAll(text, {{"\r\n", "\n"}});
  if (!text.empty() && text.back() == '\n') text.pop_back();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr) != 1) return "";
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

const ChatFormat* FindPublishedFormat(const TokenizerConfig& config) {
  const std::string fingerprint = TemplateFingerprint(config.chat_template);
  for (const PublishedTemplate& known : kPublished) {
    if (fingerprint != known.fingerprint || !Agrees(config, "bos_token", known.bos_token) ||
        !Agrees(config, "eos_token", known.eos_token)) {
      continue;
    }
    return FindChatFormat(known.format);
  }
  return nullptr;
}

}  // namespace mechinterp::engine
