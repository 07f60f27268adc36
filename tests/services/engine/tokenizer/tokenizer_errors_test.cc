#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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

constexpr absl::string_view kServedById =
    "; a copy of the checkpoint's folder without tokenizer.json (links will do) is served by token ids";

class LoadRefuses : public testing::TestWithParam<Damage> {};

TEST_P(LoadRefuses, NamingTheFileAndThePart) {
  json tokenizer_json = SmallTokenizerJson();
  GetParam().apply(tokenizer_json);
  const absl::Status status = LoadTokenizer(tokenizer_json).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr(".json: " + GetParam().expected_message));
  // What is not supported can be done without, what is malformed should be mended.
  const bool unsupported = absl::StrContains(status.message(), "is not supported");
  EXPECT_EQ(status.code(),
            unsupported ? absl::StatusCode::kUnimplemented : absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(absl::EndsWith(status.message(), kServedById), unsupported) << status.message();
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
        Damage{"model.byte_fallback: expected true or false",
               [](json& t) { t["model"]["byte_fallback"] = 1; }},
        Damage{"model.fuse_unk: expected true or false", [](json& t) { t["model"]["fuse_unk"] = "no"; }},
        Damage{"model.unk_token: expected a text", [](json& t) { t["model"]["unk_token"] = 0; }},
        Damage{R"(model.unk_token: "<unk>" is not in model.vocab)",
               [](json& t) { t["model"]["unk_token"] = "<unk>"; }},
        Damage{"model.ignore_merges: expected true or false",
               [](json& t) { t["model"]["ignore_merges"] = "yes"; }},
        Damage{"model.vocab: expected an object", [](json& t) { t["model"]["vocab"] = json::array(); }},
        Damage{R"(model.vocab["cab"]: expected an id)", [](json& t) { t["model"]["vocab"]["cab"] = -1; }},
        Damage{R"(model.vocab["cab"]: expected an id)", [](json& t) { t["model"]["vocab"]["cab"] = "258"; }},
        Damage{R"(model.vocab["cab"]: expected an id)",
               [](json& t) { t["model"]["vocab"]["cab"] = 1LL << 40; }},
        Damage{R"(model.vocab: "cab" and "ab" have the same id 256)",
               [](json& t) { t["model"]["vocab"]["cab"] = kAb; }},
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
        Damage{"added_tokens[3].lstrip: expected true or false",
               [](json& t) { t["added_tokens"][3]["lstrip"] = 1; }},
        Damage{"added_tokens[3].rstrip: expected true or false",
               [](json& t) { t["added_tokens"][3]["rstrip"] = 1; }},
        Damage{"added_tokens[3].single_word: expected true or false",
               [](json& t) { t["added_tokens"][3]["single_word"] = 1; }},
        Damage{R"(added_tokens: "<|eot_id|>" has the id 256 of the token "ab")",
               [](json& t) { t["added_tokens"][3]["id"] = kAb; }},
        Damage{R"(added_tokens: "ab" has the id 263 here and 256 elsewhere)",
               [](json& t) { t["added_tokens"][3]["content"] = "ab"; }}));

json& Step(json& tokenizer_json, int index) {
  return tokenizer_json["pre_tokenizer"]["pretokenizers"][index];
}

json Sequence(const char* list, json steps) { return {{"type", "Sequence"}, {list, std::move(steps)}}; }

INSTANTIATE_TEST_SUITE_P(
    TheNormalizer, LoadRefuses,
    testing::Values(
        Damage{"normalizer: expected an object", [](json& t) { t["normalizer"] = "NFC"; }},
        Damage{R"(normalizer.type: "Precompiled" is not supported (only "Sequence", "Prepend")",
               [](json& t) {
                 t["normalizer"] = {{"type", "Precompiled"}};
               }},
        Damage{"normalizer.type: null is not supported", [](json& t) { t["normalizer"] = json::object(); }},
        Damage{"normalizer.normalizers: expected an array",
               [](json& t) { t["normalizer"] = Sequence("normalizers", 1); }},
        Damage{R"(normalizer.normalizers[1].normalizers[0].type: "Nmt" is not supported)",
               [](json& t) {
                 const json inner = Sequence("normalizers", json::array({{{"type", "Nmt"}}}));
                 t["normalizer"] = Sequence("normalizers", json::array({{{"type", "NFC"}}, inner}));
               }},
        Damage{"normalizer: its steps may make a text more than 4096 times as long",
               [](json& t) {
                 const json replace = {
                     {"type", "Replace"}, {"pattern", {{"Regex", "."}}}, {"content", "aaaaaaaaaaaaaaaa"}};
                 t["normalizer"] = Sequence("normalizers", json::array({replace, replace, replace, replace}));
               }},
        Damage{"normalizer.prepend: expected a text",
               [](json& t) {
                 t["normalizer"] = {{"type", "Prepend"}};
               }},
        Damage{"normalizer.pattern: expected {\"String\": a text}",
               [](json& t) {
                 t["normalizer"] = {{"type", "Replace"}, {"pattern", " "}, {"content", ""}};
               }},
        Damage{"normalizer.content: expected a text", [](json& t) {
                 t["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}};
               }}));

INSTANTIATE_TEST_SUITE_P(
    ThePreTokenizer, LoadRefuses,
    testing::Values(
        Damage{"pre_tokenizer: expected an object", [](json& t) { t["pre_tokenizer"] = 1; }},
        Damage{R"(pre_tokenizer.type: "Whitespace" is not supported)",
               [](json& t) {
                 t["pre_tokenizer"] = {{"type", "Whitespace"}};
               }},
        Damage{"pre_tokenizer.pretokenizers: expected an array",
               [](json& t) { t["pre_tokenizer"].erase("pretokenizers"); }},
        Damage{R"(pre_tokenizer.pretokenizers[0].type: "Punctuation" is not supported)",
               [](json& t) { Step(t, 0)["type"] = "Punctuation"; }},
        Damage{R"(pre_tokenizer.pretokenizers[0].type: "ByteLevel" is not supported)",
               [](json& t) { std::swap(Step(t, 0), Step(t, 1)); }},
        Damage{"pre_tokenizer.pretokenizers[0].individual_digits: expected true or false",
               [](json& t) {
                 Step(t, 0) = {{"type", "Digits"}, {"individual_digits", 1}};
               }},
        Damage{R"(pre_tokenizer.pretokenizers[0].behavior: expected "Removed", "Isolated")",
               [](json& t) { Step(t, 0)["behavior"] = "Dropped"; }},
        Damage{"pre_tokenizer.pretokenizers[0].invert: expected true or false",
               [](json& t) { Step(t, 0)["invert"] = 1; }},
        Damage{"pre_tokenizer.pretokenizers[0].pattern: expected",
               [](json& t) { Step(t, 0)["pattern"] = " "; }},
        Damage{"pre_tokenizer: missing closing parenthesis",
               [](json& t) { Step(t, 0)["pattern"]["Regex"] = "(a"; }},
        Damage{
            "pre_tokenizer: a character class within a character class, or \"&&\" in one, is not supported",
            [](json& t) { Step(t, 0)["pattern"]["Regex"] = "[a[b]]"; }},
        Damage{"pre_tokenizer.pretokenizers[0].replacement: expected one character",
               [](json& t) {
                 Step(t, 0) = {{"type", "Metaspace"}, {"replacement", "__"}};
               }},
        Damage{R"(pre_tokenizer.pretokenizers[0].prepend_scheme: expected "first")",
               [](json& t) {
                 Step(t, 0) = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}};
               }},
        Damage{"pre_tokenizer.pretokenizers[0].add_prefix_space: expected true, or",
               [](json& t) {
                 Step(t, 0) = {{"type", "Metaspace"},
                               {"replacement", "_"},
                               {"prepend_scheme", "first"},
                               {"add_prefix_space", false}};
               }},
        Damage{"pre_tokenizer.pretokenizers[1].use_regex: expected true or false",
               [](json& t) { Step(t, 1)["use_regex"] = 1; }}));

INSTANTIATE_TEST_SUITE_P(
    TheDecoder, LoadRefuses,
    testing::Values(
        Damage{R"(decoder.type: "WordPiece" is not supported)",
               [](json& t) { t["decoder"]["type"] = "WordPiece"; }},
        Damage{"decoder.content: expected one character",
               [](json& t) {
                 t["decoder"] = {{"type", "Strip"}, {"content", ""}, {"start", 1}, {"stop", 0}};
               }},
        Damage{"decoder.start: expected a number of characters",
               [](json& t) {
                 t["decoder"] = {{"type", "Strip"}, {"content", " "}, {"start", -1}, {"stop", 0}};
               }},
        Damage{R"(decoder.decoders[1]: "ByteFallback" is not supported (only "Strip" of the start)",
               [](json& t) {
                 t["decoder"] = Sequence("decoders", {{{"type", "Fuse"}}, {{"type", "ByteFallback"}}});
               }},
        Damage{R"(decoder.decoders[1]: "Strip" is not supported)", [](json& t) {
                 t["decoder"] = Sequence(
                     "decoders",
                     {{{"type", "Fuse"}}, {{"type", "Strip"}, {"content", " "}, {"start", 0}, {"stop", 1}}});
               }}));

json BeginWith(const json& ids) {
  return {{"type", "TemplateProcessing"},
          {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}},
          {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", ids}}}}}};
}

INSTANTIATE_TEST_SUITE_P(
    ThePostProcessor, LoadRefuses,
    testing::Values(Damage{R"(post_processor.type: "Mine" is not supported)",
                           [](json& t) {
                             t["post_processor"] = {{"type", "Mine"}};
                           }},
                    Damage{"post_processor: 259 is no token's id",
                           [](json& t) { t["post_processor"] = BeginWith({259}); }},
                    Damage{R"(post_processor.special_tokens["<s>"].ids: expected an id)",
                           [](json& t) { t["post_processor"] = BeginWith({-1}); }},
                    Damage{R"(post_processor.special_tokens["<s>"].ids: expected an array)",
                           [](json& t) { t["post_processor"] = BeginWith(nullptr); }},
                    Damage{"post_processor.single: expected an array of special tokens and the sequence",
                           [](json& t) {
                             t["post_processor"] = BeginWith({kBeginOfText});
                             t["post_processor"]["single"].push_back({{"Sequence", {{"id", "A"}}}});
                           }},
                    Damage{"post_processor.cls: expected a token and its id",
                           [](json& t) {
                             t["post_processor"] = {{"type", "BertProcessing"}, {"cls", "<s>"}};
                           }},
                    Damage{R"(post_processor.processors[1].type: "TemplateProcessing" is not supported)",
                           [](json& t) {
                             t["post_processor"] = Sequence(
                                 "processors", {BeginWith({kBeginOfText}), BeginWith({kBeginOfText})});
                           }}));

TEST(Load, RefusesWhatIsNotJson) {
  const std::string whole = SmallTokenizerJson().dump();
  for (const std::string& text :
       {std::string(), std::string("{"), whole.substr(0, whole.size() / 2),
        std::string("{\"model\": \"\xFF\"}"), std::string(100000, '['), std::string("[]")}) {
    const absl::Status status = LoadTokenizerText(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(".json: "));
    EXPECT_LT(status.message().size(), 500u);
  }
}

// A deep or a huge value where a message quotes what it found.
TEST(Load, QuotesNoMoreThanALittleOfTheFile) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  const std::string wide = "[" + std::string(1000000, '1') + "]";
  const std::string huge = "\"" + std::string(22000000, 'x') + "\"";
  for (const std::string& value : {deep, wide, huge}) {
    for (const std::string field :
         {"normalizer", "pre_tokenizer", "decoder", "post_processor", "added_tokens", "model"}) {
      const absl::Status status = LoadTokenizerText(absl::StrCat("{\"", field, "\": ", value, "}")).status();
      EXPECT_FALSE(status.ok());
      EXPECT_LT(status.message().size(), 500u) << field;
    }
    for (const std::string field : {"type", "dropout", "unk_token", "vocab", "merges", "byte_fallback"}) {
      const absl::Status status =
          LoadTokenizerText(absl::StrCat("{\"model\": {\"", field, "\": ", value, "}}")).status();
      EXPECT_FALSE(status.ok());
      EXPECT_LT(status.message().size(), 500u) << field;
    }
  }
  json long_names = SmallTokenizerJson();
  const std::string name(1000000, 'x');
  long_names["model"]["vocab"][name] = -1;
  EXPECT_LT(LoadTokenizer(long_names).status().message().size(), 500u);
  long_names["model"]["vocab"][name] = kAb;
  EXPECT_LT(LoadTokenizer(long_names).status().message().size(), 500u);
  long_names["model"]["vocab"].erase(name);
  long_names["model"]["merges"][0] = {name, "a"};
  EXPECT_LT(LoadTokenizer(long_names).status().message().size(), 500u);
  long_names = SmallTokenizerJson();
  Step(long_names, 0)["pattern"]["Regex"] = "(" + name;
  EXPECT_LT(LoadTokenizer(long_names).status().message().size(), 500u);
}

TEST(Load, SaysNotFoundForAMissingFile) {
  const absl::Status status = Tokenizer::Load("/nowhere/tokenizer.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/tokenizer.json"));
}

// Opening a pipe would wait for somebody to write into it.
TEST(Load, RefusesWhatIsNoRegularFileWithoutWaiting) {
  const std::string pipe = testing::TempDir() + "tokenizer-pipe-" + std::to_string(getpid());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {pipe, testing::TempDir()}) {
    const absl::Status status = Tokenizer::Load(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(path + ": not a regular file"));
  }
  unlink(pipe.c_str());
}

}  // namespace
}  // namespace mechinterp::engine
