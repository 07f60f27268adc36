#include "tests/services/engine/tokenizer/small_tokenizer.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>

#include "gtest/gtest.h"
#include "services/engine/tokenizer/byte_alphabet.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

json AddedTokenJson(const std::string& content, TokenId id, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

}  // namespace

json SmallTokenizerJson() {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocab[BytesToAlphabet(std::string(1, static_cast<char>(byte)))] = byte;
  vocab["ab"] = kAb;
  vocab["Ġab"] = kSpaceAb;
  vocab["cab"] = kCab;
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", R"(\p{L}+| ?[^\s\p{L}]+|\s+)"}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {
      {"version", "1.0"},
      {"normalizer", nullptr},
      {"added_tokens",
       {AddedTokenJson("<|begin_of_text|>", kBeginOfText, true),
        AddedTokenJson("<|start_header_id|>", kStartHeader, true),
        AddedTokenJson("<|end_header_id|>", kEndHeader, true), AddedTokenJson("<|eot_id|>", kEndOfTurn, true),
        AddedTokenJson("<tool>", kTool, false), AddedTokenJson("<tool>call", kToolCall, false)}},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"ignore_merges", false}, {"vocab", vocab}, {"merges", {"a b", "Ġ ab"}}}}};
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizerText(const std::string& tokenizer_json) {
  // One file per process and call: ctest may run many at once.
  static int count = 0;
  const std::string path =
      testing::TempDir() + "tokenizer-" + std::to_string(getpid()) + "-" + std::to_string(count++) + ".json";
  std::ofstream(path) << tokenizer_json;
  auto tokenizer = Tokenizer::Load(path);
  std::remove(path.c_str());
  return tokenizer;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(const json& tokenizer_json) {
  return LoadTokenizerText(tokenizer_json.dump());
}

std::shared_ptr<const Tokenizer> SmallTokenizer() {
  auto tokenizer = LoadTokenizer(SmallTokenizerJson());
  EXPECT_THAT(tokenizer, IsOk());
  return tokenizer.value();
}

std::vector<TokenId> ByteIds(const std::string& bytes) {
  std::vector<TokenId> ids;
  for (const char byte : bytes) ids.push_back(static_cast<uint8_t>(byte));
  return ids;
}

}  // namespace mechinterp::engine
