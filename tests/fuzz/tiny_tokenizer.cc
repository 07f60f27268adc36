#include "tests/fuzz/tiny_tokenizer.h"

#include <nlohmann/json.hpp>
#include <string>

#include "services/engine/tokenizer/byte_alphabet.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp::fuzz {

std::string TinyTokenizerJson() {
  constexpr int kBytes = 256;
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < kBytes; ++byte) {
    vocab[engine::BytesToAlphabet(std::string(1, static_cast<char>(byte)))] = byte;
  }
  nlohmann::json added = nlohmann::json::array();
  for (const char* text : {"<s>", "</s>", "<|user|>", "<|bot|>", "<|end|>"}) {
    const int id = kBytes + static_cast<int>(added.size());
    added.push_back({{"id", id}, {"content", text}, {"special", added.size() < 3}});
  }
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return nlohmann::json{{"added_tokens", added},
                        {"pre_tokenizer", byte_level},
                        {"decoder", {{"type", "ByteLevel"}}},
                        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}}
      .dump();
}

const std::shared_ptr<const engine::Tokenizer>& TinyTokenizer() {
  static const auto& tokenizer = *[] {
    auto loaded = engine::Tokenizer::Load(ScratchFile("tiny_tokenizer.json", TinyTokenizerJson()));
    RequireOk(loaded.status(), "the tiny tokenizer");
    return new std::shared_ptr<const engine::Tokenizer>(*std::move(loaded));
  }();
  return tokenizer;
}

}  // namespace mechinterp::fuzz
