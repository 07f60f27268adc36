// A file of prompt pairs.

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "clients/lib/prompts.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp {
namespace {

using fuzz::Require;

// In reversed order of keys.
std::string Written(const std::vector<PromptPair>& pairs) {
  nlohmann::json list = nlohmann::json::array();
  for (const PromptPair& pair : pairs) {
    list.push_back({{"harmless", pair.harmless},
                    {"harmful", pair.harmful},
                    {"category", pair.category},
                    {"id", pair.id}});
  }
  return nlohmann::json{{"pairs", list}}.dump();
}

void CheckPairs(const std::vector<PromptPair>& pairs) {
  std::set<std::string> ids;
  for (const PromptPair& pair : pairs) {
    Require(ids.insert(pair.id).second, "ids are distinct");
    for (const std::string* text : {&pair.id, &pair.category, &pair.harmful, &pair.harmless}) {
      Require(!text->empty(), "no text is empty");
      fuzz::RequireOk(CheckUtf8("a text", *text), "texts can be sent");
    }
    v1::Prompt sent;
    Require(sent.ParseFromString(UserPrompt(pair.harmful, pair.category).SerializeAsString()) &&
                sent.chat().messages(1).content() == pair.harmful,
            "a prompt arrives");
  }
}

}  // namespace
}  // namespace mechinterp

ABSTRACT_FUZZ_TARGET(prompts) {
  using namespace mechinterp;
  const std::string path = fuzz::ScratchFile("prompts.json", input);
  const auto pairs = LoadPromptPairs(path);
  if (!pairs.ok()) return fuzz::RequireRefusal(pairs.status(), path);
  CheckPairs(*pairs);
  const auto first = LoadPromptPairs(path, 1);
  fuzz::RequireOk(first.status(), "the first of them");
  fuzz::Require(first->size() == 1 && first->front().id == pairs->front().id, "the first of them");
  const auto again = LoadPromptPairs(fuzz::ScratchFile("written.json", Written(*pairs)));
  fuzz::RequireOk(again.status(), "what was written can be read");
  fuzz::Require(DigestOf(*again) == DigestOf(*pairs), "pairs come back");
}
