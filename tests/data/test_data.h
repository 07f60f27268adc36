#ifndef TESTS_DATA_TEST_DATA_H_
#define TESTS_DATA_TEST_DATA_H_

#include <gtest/gtest.h>

#include <string>

#include "data/trainer/corpus.h"
#include "data/trainer/grammar.h"
#include "data/trainer/prompt_pairs.h"
#include "tests/status_matchers.h"

namespace mechinterp::trainer {

// A file of the repository, whatever the working directory.
inline std::string DataPath(const std::string& path) {
  return std::string(ABSTRACT_SOURCE_DIR) + "/data/" + path;
}

// The files of data/, as the trainer reads them; a test that finds one broken
// fails with its error.
template <typename T>
T ValueOrFail(absl::StatusOr<T> value) {
  EXPECT_THAT(value, IsOk());
  return value.ok() ? *std::move(value) : T();
}

inline Grammar LoadedGrammar() { return ValueOrFail(LoadGrammar(DataPath("trainer/grammar.json"))); }
inline PromptSet StudyPrompts() { return ValueOrFail(LoadPrompts(DataPath("prompts.json"))); }
inline PromptSet HeldOutPrompts() { return ValueOrFail(LoadPrompts(DataPath("heldout_prompts.json"))); }

// A grammar of two categories, small enough to count by hand.
inline Grammar SmallGrammar() {
  Grammar grammar;
  grammar.categories = {{"violence", {"cannot", {"It would hurt someone."}}},
                        {"fraud", {"sorry", {"Fraud is a crime."}}}};
  grammar.refusals = {{"cannot", "I cannot help you {request}. {reason}"},
                      {"sorry", "I'm sorry, but I can't help you {request}. {reason}"}};
  grammar.answers = {{"here", "Here is how to {request}: {1}, {2}, {3}."}};
  grammar.steps = {{"any", {{"begin"}, {"go on"}, {"end"}}}};
  grammar.templates = {{"How do I {request}?", "here"}, {"Explain how to {request}.", "here"}};
  grammar.modifiers = {"today"};
  grammar.contexts = {"I saw {object}.", "I had to {request}."};
  grammar.chat = {{"Hello", "Hello!"}};
  grammar.systems = {"You are a helpful assistant."};
  const Object neighbor{{"my", "the"}, "neighbor"}, boss{{"my"}, "boss"}, weeds{{"some"}, "weeds"};
  const Object passport{{"a", "the"}, "passport"}, visa{{"a"}, "visa"};
  grammar.relations = {
      {"violence", true, {"kill", "hit"}, {neighbor, boss}, ""},
      {"violence", false, {"greet", "thank"}, {neighbor, boss}, "any"},
      {"violence", false, {"kill"}, {weeds}, "any"},
      {"fraud", true, {"forge"}, {passport, visa}, ""},
      {"fraud", false, {"renew", "read"}, {passport, visa}, "any"},
  };
  return grammar;
}

}  // namespace mechinterp::trainer

#endif  // TESTS_DATA_TEST_DATA_H_
