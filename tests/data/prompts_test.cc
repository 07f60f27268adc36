#include <gmock/gmock.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "data/trainer/prompt_pairs.h"
#include "services/common/json_file.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/data/test_data.h"
#include "tests/status_matchers.h"

namespace mechinterp::trainer {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const engine::Tokenizer> TinyTokenizer() {
  return ValueOrFail(engine::Tokenizer::Load(DataPath("models/tiny-llama-refusal/tokenizer.json")));
}

// Writes `text` to a file of this test's own and returns its path.
std::string TemporaryFile(const std::string& text) {
  const std::string path =
      testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name() + ".json";
  std::ofstream(path) << text;
  return path;
}

PromptSet PromptsOf(const std::string& file) { return ValueOrFail(LoadPrompts(DataPath(file))); }

std::map<std::string, int> PairsByCategory(const PromptSet& prompts) {
  std::map<std::string, int> counts;
  for (const PromptPair& pair : prompts.pairs) ++counts[pair.category];
  return counts;
}

// Requests that have no counterpart, as data/borderline_prompts.json holds them.
struct Request {
  std::string id;
  std::string category;
  std::string text;
};

std::vector<Request> BorderlineRequests() {
  const nlohmann::json file = ValueOrFail(ReadJsonFile(DataPath("borderline_prompts.json")));
  EXPECT_EQ(file.value("version", 0), 1);
  EXPECT_NE(file.value("notice", ""), "");
  std::vector<Request> requests;
  for (const nlohmann::json& item : file.value("prompts", nlohmann::json::array())) {
    requests.push_back({item.value("id", ""), item.value("category", ""), item.value("text", "")});
  }
  return requests;
}

// "hacking-07"
bool IsId(const std::string& text) {
  for (const unsigned char c : text) {
    if (!std::islower(c) && !std::isdigit(c) && c != '-') return false;
  }
  return !text.empty();
}

TEST(LoadPrompts, RejectsAPromptThatOccursTwice) {
  const auto prompts = LoadPrompts(TemporaryFile(
      R"({"version": 1, "notice": "", "pairs": [{"id": "a", "category": "b", "harmful": "x", "harmless": "x"}]})"));
  EXPECT_THAT(prompts.status().ToString(), HasSubstr("'x' occurs twice"));
}

TEST(LoadPrompts, NamesAMissingField) {
  const auto prompts = LoadPrompts(TemporaryFile(R"({"version": 1, "notice": "", "pairs": [{"id": "a"}]})"));
  EXPECT_THAT(prompts.status().ToString(), HasSubstr("category"));
}

TEST(WritePrompts, ReadsBackWhatItWrote) {
  const std::string path = TemporaryFile("");
  ASSERT_THAT(WritePrompts(path, {3, "note", {{"id", "category", "harmful", "harmless"}}}), IsOk());
  const PromptSet prompts = ValueOrFail(LoadPrompts(path));
  EXPECT_EQ(prompts.version, 3);
  EXPECT_EQ(prompts.notice, "note");
  ASSERT_EQ(prompts.pairs.size(), 1u);
  EXPECT_EQ(prompts.pairs[0].harmless, "harmless");
}

TEST(IsRefusal, MatchesAnywhereWhateverTheCaseAndApostrophe) {
  const std::vector<std::string> phrases = {"I can't", "I cannot"};
  EXPECT_TRUE(IsRefusal("I CANNOT do that", phrases));
  EXPECT_TRUE(IsRefusal("Well, I can\u2019t do that", phrases));
  EXPECT_FALSE(IsRefusal("I can do that", phrases));
}

TEST(StudyPromptsFile, HasFifteenPairsInFiveCategoriesOrMore) {
  const PromptSet prompts = StudyPrompts();
  std::set<std::string> categories;
  for (const PromptPair& pair : prompts.pairs) categories.insert(pair.category);
  EXPECT_EQ(prompts.pairs.size(), 15u);
  EXPECT_GE(categories.size(), 5u);
  EXPECT_GE(prompts.version, 1);
  EXPECT_FALSE(prompts.notice.empty());
}

TEST(HeldOutPromptsFile, HasAtLeast120PairsApartFromTheStudys) {
  const PromptSet heldout = HeldOutPrompts();
  EXPECT_GE(heldout.pairs.size(), 120u);
  EXPECT_FALSE(heldout.notice.empty());
  std::set<std::string> study;
  for (const PromptPair& pair : StudyPrompts().pairs) study.insert({pair.harmful, pair.harmless});
  for (const PromptPair& pair : heldout.pairs) {
    EXPECT_FALSE(study.contains(pair.harmful)) << pair.id;
    EXPECT_FALSE(study.contains(pair.harmless)) << pair.id;
  }
}

TEST(LibraryPromptsFile, HasAtLeast128PairsInTenCategoriesOfTenOrMore) {
  const PromptSet library = PromptsOf("library_prompts.json");
  EXPECT_GE(library.pairs.size(), 128u);
  EXPECT_FALSE(library.notice.empty());
  const auto counts = PairsByCategory(library);
  EXPECT_GE(counts.size(), 10u);
  for (const auto& [category, count] : counts) EXPECT_GE(count, 10) << category;
}

TEST(LibraryHeldOutPromptsFile, HasAtLeast100PairsInTheLibrarysCategories) {
  const PromptSet heldout = PromptsOf("library_heldout_prompts.json");
  EXPECT_GE(heldout.pairs.size(), 100u);
  EXPECT_FALSE(heldout.notice.empty());
  const auto of_heldout = PairsByCategory(heldout);
  const auto of_library = PairsByCategory(PromptsOf("library_prompts.json"));
  for (const auto& [category, count] : of_library) EXPECT_TRUE(of_heldout.contains(category)) << category;
  EXPECT_EQ(of_heldout.size(), of_library.size());
}

TEST(BorderlinePromptsFile, HasAtLeast64RequestsInEightCategoriesOrMore) {
  const std::vector<Request> requests = BorderlineRequests();
  EXPECT_GE(requests.size(), 64u);
  std::set<std::string> ids, categories;
  for (const Request& request : requests) {
    EXPECT_TRUE(IsId(request.id)) << request.id;
    EXPECT_TRUE(ids.insert(request.id).second) << request.id << " occurs twice";
    EXPECT_TRUE(IsId(request.category)) << request.id;
    EXPECT_FALSE(request.text.empty()) << request.id;
    EXPECT_EQ(request.text.find('\n'), std::string::npos) << request.id;
    categories.insert(request.category);
  }
  EXPECT_GE(categories.size(), 8u);
}

TEST(TranslatedPromptsFiles, HaveTheIdsAndCategoriesOfTheStudys) {
  const PromptSet study = StudyPrompts();
  for (const char* language : {"de", "fr", "es"}) {
    const PromptSet translated = PromptsOf(std::string("prompts_") + language + ".json");
    EXPECT_NE(translated.notice, study.notice) << language;
    ASSERT_EQ(translated.pairs.size(), study.pairs.size()) << language;
    for (size_t i = 0; i < study.pairs.size(); ++i) {
      const PromptPair& pair = translated.pairs[i];
      EXPECT_EQ(pair.id, study.pairs[i].id) << language;
      EXPECT_EQ(pair.category, study.pairs[i].category) << language << ' ' << pair.id;
      EXPECT_NE(pair.harmful, study.pairs[i].harmful) << language << ' ' << pair.id;
      EXPECT_NE(pair.harmless, study.pairs[i].harmless) << language << ' ' << pair.id;
      EXPECT_EQ((pair.harmful + pair.harmless).find('\n'), std::string::npos) << language << ' ' << pair.id;
    }
  }
}

TEST(PromptFiles, NoRequestOccursTwiceWhateverTheFileAndTheCase) {
  std::map<std::string, std::string> places;
  const auto add = [&](const std::string& text, const std::string& place) {
    const auto [found, added] = places.emplace(absl::AsciiStrToLower(text), place);
    EXPECT_TRUE(added) << "'" << text << "' of " << place << " is in " << found->second << " too";
  };
  for (const char* file :
       {"prompts.json", "heldout_prompts.json", "library_prompts.json", "library_heldout_prompts.json",
        "prompts_de.json", "prompts_fr.json", "prompts_es.json"}) {
    for (const PromptPair& pair : PromptsOf(file).pairs) {
      for (const std::string& text : {pair.harmful, pair.harmless}) add(text, file);
    }
  }
  for (const Request& request : BorderlineRequests()) add(request.text, "borderline_prompts.json");
}

TEST(PromptFiles, TheLibrarysPairsAreOneLineAndHaveIdsOfTheirOwn) {
  std::set<std::string> ids;
  for (const char* file : {"library_prompts.json", "library_heldout_prompts.json"}) {
    for (const PromptPair& pair : PromptsOf(file).pairs) {
      EXPECT_TRUE(IsId(pair.id)) << pair.id;
      EXPECT_TRUE(ids.insert(pair.id).second) << pair.id << " is in both files";
      EXPECT_TRUE(IsId(pair.category)) << pair.id;
      EXPECT_EQ((pair.harmful + pair.harmless).find('\n'), std::string::npos) << pair.id;
    }
  }
}

TEST(PromptFiles, PairsAreOneLineAndEquallyLongInTheTinyTokenizer) {
  const auto tokenizer = TinyTokenizer();
  ASSERT_NE(tokenizer, nullptr);
  for (const PromptSet& prompts : {StudyPrompts(), HeldOutPrompts()}) {
    for (const PromptPair& pair : prompts.pairs) {
      EXPECT_EQ(tokenizer->Encode(pair.harmful).size(), tokenizer->Encode(pair.harmless).size()) << pair.id;
      EXPECT_EQ((pair.harmful + pair.harmless).find('\n'), std::string::npos) << pair.id;
    }
  }
}

// Needs Llama 3's own tokenizer.json, which tests/fetch_tokenizers.sh fetches.
TEST(PromptFiles, PairsAreEquallyLongInLlama3sTokenizer) {
  const char* chosen = std::getenv("ABSTRACT_TOKENIZERS");
  const std::string path =
      std::string(chosen != nullptr ? chosen : ABSTRACT_TOKENIZERS_DEFAULT) + "/llama3.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  const auto tokenizer = ValueOrFail(engine::Tokenizer::Load(path));
  ASSERT_NE(tokenizer, nullptr);
  for (const PromptSet& prompts : {StudyPrompts(), HeldOutPrompts(), PromptsOf("library_prompts.json"),
                                   PromptsOf("library_heldout_prompts.json")}) {
    for (const PromptPair& pair : prompts.pairs) {
      EXPECT_EQ(tokenizer->Encode(pair.harmful).size(), tokenizer->Encode(pair.harmless).size()) << pair.id;
    }
  }
}

}  // namespace
}  // namespace mechinterp::trainer
