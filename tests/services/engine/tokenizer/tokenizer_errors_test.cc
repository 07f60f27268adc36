#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"

namespace mechinterp::engine {
namespace {

using ::nlohmann::json;
using ::testing::HasSubstr;

struct Damage {
  std::string expected_message;
  std::function<void(json&)> apply;
};

class LoadRefuses : public testing::TestWithParam<Damage> {};

TEST_P(LoadRefuses, NamingTheFileAndThePart) {
  json tokenizer_json = SmallTokenizerJson();
  GetParam().apply(tokenizer_json);
  const absl::Status status = LoadTokenizer(tokenizer_json).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(".json: " + GetParam().expected_message));
}

INSTANTIATE_TEST_SUITE_P(
    TheModel, LoadRefuses,
    testing::Values(
        Damage{"model: expected an object", [](json& t) { t.erase("model"); }},
        Damage{R"(model.type: "Unigram" is not supported (only "BPE"))",
               [](json& t) { t["model"]["type"] = "Unigram"; }},
        Damage{"model.dropout: 0.1 is not supported", [](json& t) { t["model"]["dropout"] = 0.1; }},
        Damage{R"(model.continuing_subword_prefix: "##" is not supported)",
               [](json& t) { t["model"]["continuing_subword_prefix"] = "##"; }},
        Damage{R"(model.end_of_word_suffix: "</w>" is not supported)",
               [](json& t) { t["model"]["end_of_word_suffix"] = "</w>"; }},
        Damage{"model.byte_fallback: true is not supported",
               [](json& t) { t["model"]["byte_fallback"] = true; }},
        Damage{"model.ignore_merges: expected true or false",
               [](json& t) { t["model"]["ignore_merges"] = "yes"; }},
        Damage{"model.vocab: expected an object", [](json& t) { t["model"]["vocab"] = json::array(); }},
        Damage{R"(model.vocab["cab"]: expected an id)", [](json& t) { t["model"]["vocab"]["cab"] = -1; }},
        Damage{R"(model.vocab["cab"]: expected an id)", [](json& t) { t["model"]["vocab"]["cab"] = "258"; }},
        Damage{R"(model.vocab["cab"]: expected an id)",
               [](json& t) { t["model"]["vocab"]["cab"] = 1LL << 40; }},
        Damage{R"(model.vocab: "cab" and "ab" have the same id 256)",
               [](json& t) { t["model"]["vocab"]["cab"] = kAb; }},
        Damage{R"(model.vocab: no token for the byte 0x20 ("Ġ"))",
               [](json& t) { t["model"]["vocab"].erase("Ġ"); }},
        Damage{"model.merges: expected an array", [](json& t) { t["model"].erase("merges"); }},
        Damage{"model.merges[1]: expected two tokens", [](json& t) { t["model"]["merges"][1] = "Ġab"; }},
        Damage{"model.merges[1]: expected two tokens", [](json& t) { t["model"]["merges"][1] = "a b c"; }},
        Damage{"model.merges[0]: expected two tokens",
               [](json& t) {
                 t["model"]["merges"][0] = {"a", "b", "c"};
               }},
        Damage{"model.merges[0]: expected two tokens", [](json& t) { t["model"]["merges"][0] = 7; }},
        Damage{R"(model.merges[1]: "日" is not in model.vocab)",
               [](json& t) { t["model"]["merges"][1] = "a 日"; }},
        Damage{R"(model.merges[1]: "ba" is not in model.vocab)",
               [](json& t) { t["model"]["merges"][1] = "b a"; }}));

INSTANTIATE_TEST_SUITE_P(
    AddedTokens, LoadRefuses,
    testing::Values(
        Damage{"added_tokens: expected an array", [](json& t) { t["added_tokens"] = 1; }},
        Damage{"added_tokens[2]: expected an object", [](json& t) { t["added_tokens"][2] = "x"; }},
        Damage{"added_tokens[2].content: expected a text",
               [](json& t) { t["added_tokens"][2]["content"] = ""; }},
        Damage{"added_tokens[2].id: expected an id", [](json& t) { t["added_tokens"][2].erase("id"); }},
        Damage{"added_tokens[2].special: expected true or false",
               [](json& t) { t["added_tokens"][2]["special"] = 1; }},
        Damage{"added_tokens[3].lstrip: true is not supported (only false)",
               [](json& t) { t["added_tokens"][3]["lstrip"] = true; }},
        Damage{"added_tokens[3].rstrip: true is not supported",
               [](json& t) { t["added_tokens"][3]["rstrip"] = true; }},
        Damage{"added_tokens[3].single_word: true is not supported",
               [](json& t) { t["added_tokens"][3]["single_word"] = true; }},
        Damage{R"(added_tokens: "<|eot_id|>" has the id 256 of the token "ab")",
               [](json& t) { t["added_tokens"][3]["id"] = kAb; }},
        Damage{R"(added_tokens: "ab" has the id 263 here and 256 elsewhere)",
               [](json& t) { t["added_tokens"][3]["content"] = "ab"; }}));

json& Step(json& tokenizer_json, int index) {
  return tokenizer_json["pre_tokenizer"]["pretokenizers"][index];
}

INSTANTIATE_TEST_SUITE_P(
    TheOtherParts, LoadRefuses,
    testing::Values(
        Damage{R"(normalizer: "NFC" is not supported (only null))",
               [](json& t) {
                 t["normalizer"] = {{"type", "NFC"}};
               }},
        Damage{R"(decoder.type: "Metaspace" is not supported)",
               [](json& t) { t["decoder"]["type"] = "Metaspace"; }},
        Damage{"pre_tokenizer: expected an object", [](json& t) { t["pre_tokenizer"] = nullptr; }},
        Damage{R"(pre_tokenizer.type: "Whitespace" is not supported)",
               [](json& t) {
                 t["pre_tokenizer"] = {{"type", "Whitespace"}};
               }},
        Damage{"pre_tokenizer.pretokenizers: expected an array",
               [](json& t) { t["pre_tokenizer"].erase("pretokenizers"); }},
        Damage{"pre_tokenizer.pretokenizers: expected a \"ByteLevel\"",
               [](json& t) { t["pre_tokenizer"]["pretokenizers"] = json::array(); }},
        Damage{R"(pre_tokenizer.pretokenizers[0].type: "Punctuation" is not supported)",
               [](json& t) { Step(t, 0)["type"] = "Punctuation"; }},
        Damage{"pre_tokenizer.pretokenizers[0].individual_digits: expected true or false",
               [](json& t) {
                 Step(t, 0) = {{"type", "Digits"}, {"individual_digits", 1}};
               }},
        Damage{R"(pre_tokenizer.pretokenizers[1].type: "Split" is not supported)",
               [](json& t) { Step(t, 1)["type"] = "Split"; }},
        Damage{R"(pre_tokenizer.pretokenizers[0].behavior: "Removed" is not supported (only "Isolated"))",
               [](json& t) { Step(t, 0)["behavior"] = "Removed"; }},
        Damage{"pre_tokenizer.pretokenizers[0].invert: true is not supported",
               [](json& t) { Step(t, 0)["invert"] = true; }},
        Damage{"pre_tokenizer.pretokenizers[0].pattern: expected",
               [](json& t) {
                 Step(t, 0)["pattern"] = {{"String", " "}};
               }},
        Damage{"pre_tokenizer: missing closing parenthesis",
               [](json& t) { Step(t, 0)["pattern"]["Regex"] = "(a"; }},
        Damage{"pre_tokenizer.pretokenizers[1].add_prefix_space: true is not supported",
               [](json& t) { Step(t, 1)["add_prefix_space"] = true; }},
        Damage{"pre_tokenizer.pretokenizers[1].use_regex: expected true or false",
               [](json& t) { Step(t, 1)["use_regex"] = 1; }}));

TEST(Load, RefusesWhatIsNotJson) {
  const std::string whole = SmallTokenizerJson().dump();
  for (const std::string& text : {std::string(), std::string("{"), whole.substr(0, whole.size() / 2),
                                  std::string("{\"model\": \"\xFF\"}"), std::string(100000, '[')}) {
    const absl::Status status = LoadTokenizerText(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(".json: not JSON: "));
  }
  EXPECT_THAT(std::string(LoadTokenizerText("[]").status().message()), HasSubstr("expected a JSON object"));
}

TEST(Load, SaysNotFoundForAMissingFileAndForAFolder) {
  for (const std::string& path : {std::string("/nowhere/tokenizer.json"), testing::TempDir()}) {
    const absl::Status status = Tokenizer::Load(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()), HasSubstr(path + ": cannot be read: "));
  }
}

}  // namespace
}  // namespace mechinterp::engine
