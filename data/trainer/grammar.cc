#include "data/trainer/grammar.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp::trainer {
namespace {

using Json = nlohmann::ordered_json;

// The groups of grammar.json's "objects", by name.
using ObjectGroups = std::map<std::string, std::vector<Object>>;

absl::StatusOr<std::vector<Object>> ParseObjects(const Json& items, const ObjectGroups& groups) {
  std::vector<Object> objects;
  for (const Json& item : items) {
    const std::string text = item.get<std::string>();
    if (!text.empty() && text[0] == '@') {
      const auto group = groups.find(text.substr(1));
      if (group == groups.end()) return absl::InvalidArgumentError(absl::StrCat("no object group ", text));
      objects.insert(objects.end(), group->second.begin(), group->second.end());
      continue;
    }
    ABSTRACT_ASSIGN_OR_RETURN(Object object, ParseObject(text));
    objects.push_back(std::move(object));
  }
  return objects;
}

absl::Status ParseRelations(const Json& items, bool harmful, const ObjectGroups& groups, Grammar& grammar) {
  for (const Json& item : items) {
    Relation relation;
    relation.category = item.at("category").get<std::string>();
    relation.harmful = harmful;
    relation.verbs = item.at("verbs").get<std::vector<std::string>>();
    relation.steps = item.value("steps", "");
    ABSTRACT_ASSIGN_OR_RETURN(std::vector<Object> objects, ParseObjects(item.at("objects"), groups));
    relation.objects = std::move(objects);
    grammar.relations.push_back(std::move(relation));
  }
  return absl::OkStatus();
}

// Throws nlohmann's exceptions; LoadGrammar turns them into statuses.
absl::StatusOr<Grammar> ParseGrammar(const Json& json) {
  Grammar grammar;
  ObjectGroups groups;
  for (const auto& [name, items] : json.at("objects").items()) {
    ABSTRACT_ASSIGN_OR_RETURN(std::vector<Object> objects, ParseObjects(items, {}));
    groups[name] = std::move(objects);
  }
  for (const bool harmful : {true, false}) {
    ABSTRACT_RETURN_IF_ERROR(
        ParseRelations(json.at(harmful ? "harmful" : "harmless"), harmful, groups, grammar));
  }
  for (const Json& item : json.at("templates")) {
    grammar.templates.push_back({item.at("text").get<std::string>(), item.at("answer").get<std::string>()});
  }
  for (const auto& [name, item] : json.at("categories").items()) {
    grammar.categories[name] = {item.at("refusal").get<std::string>(),
                                item.at("reasons").get<std::vector<std::string>>()};
  }
  for (const Json& item : json.at("chat")) {
    grammar.chat.push_back({item.at("user").get<std::string>(), item.at("assistant").get<std::string>()});
  }
  json.at("modifiers").get_to(grammar.modifiers);
  json.at("contexts").get_to(grammar.contexts);
  json.at("answers").get_to(grammar.answers);
  json.at("steps").get_to(grammar.steps);
  json.at("refusals").get_to(grammar.refusals);
  json.at("systems").get_to(grammar.systems);
  return grammar;
}

absl::Status ValidateRelation(const Grammar& grammar, const Relation& relation) {
  const std::string name = absl::StrCat(relation.harmful ? "harmful" : "harmless", " relation of ",
                                        relation.category, " (", absl::StrJoin(relation.verbs, ", "), ")");
  if (relation.verbs.empty() || relation.objects.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, " has no verbs or no objects"));
  }
  if (!grammar.categories.contains(relation.category)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": unknown category"));
  }
  // The one rule of this corpus: what is harmful has no answer.
  if (relation.harmful && !relation.steps.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, " must not have steps"));
  }
  if (relation.harmful) return absl::OkStatus();
  const auto steps = grammar.steps.find(relation.steps);
  if (steps == grammar.steps.end()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": unknown steps '", relation.steps, "'"));
  }
  if (steps->second.size() != 3) {
    return absl::InvalidArgumentError(absl::StrCat("steps '", relation.steps, "' must have three slots"));
  }
  for (const std::vector<std::string>& slot : steps->second) {
    if (slot.empty()) return absl::InvalidArgumentError(absl::StrCat(relation.steps, ": empty slot"));
  }
  return absl::OkStatus();
}

absl::Status ValidateClasses(const Grammar& grammar) {
  std::map<std::pair<std::string, std::string>, bool> class_of_pair;
  std::map<std::string, std::set<bool>> classes_of_category;
  for (const Relation& relation : grammar.relations) {
    classes_of_category[relation.category].insert(relation.harmful);
    for (const std::string& verb : relation.verbs) {
      for (const Object& object : relation.objects) {
        const auto [at, added] = class_of_pair.emplace(std::pair(verb, object.noun), relation.harmful);
        if (!added && at->second != relation.harmful) {
          return absl::InvalidArgumentError(
              absl::StrCat("'", verb, " ", object.noun, "' is both harmful and harmless"));
        }
      }
    }
  }
  for (const auto& [name, category] : grammar.categories) {
    if (classes_of_category[name].size() != 2) {
      return absl::InvalidArgumentError(absl::StrCat("category ", name, " lacks a class"));
    }
    if (category.reasons.empty() || !grammar.refusals.contains(category.refusal)) {
      return absl::InvalidArgumentError(absl::StrCat("category ", name, ": no reasons or unknown refusal"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Object> ParseObject(const std::string& text) {
  const size_t space = text.find(' ');
  if (space == std::string::npos || space == 0 || space + 1 == text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("object '", text, "' is not DETERMINERS NOUN"));
  }
  Object object;
  object.determiners = absl::StrSplit(text.substr(0, space), '|');
  for (std::string& determiner : object.determiners) {
    if (determiner == "-") determiner.clear();
  }
  object.noun = text.substr(space + 1);
  return object;
}

std::string RequestPhrase(const std::string& verb, const std::string& determiner, const std::string& noun) {
  return determiner.empty() ? absl::StrCat(verb, " ", noun) : absl::StrCat(verb, " ", determiner, " ", noun);
}

absl::Status ValidateGrammar(const Grammar& grammar) {
  for (const Relation& relation : grammar.relations) {
    ABSTRACT_RETURN_IF_ERROR(ValidateRelation(grammar, relation));
  }
  for (const Template& way : grammar.templates) {
    if (!grammar.answers.contains(way.answer)) {
      return absl::InvalidArgumentError(absl::StrCat("template '", way.text, "': unknown answer"));
    }
    if (way.text.find("{request}") == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("template '", way.text, "' lacks {request}"));
    }
  }
  if (grammar.templates.empty() || grammar.modifiers.empty() || grammar.contexts.empty() ||
      grammar.chat.empty() || grammar.systems.empty()) {
    return absl::InvalidArgumentError("templates, modifiers, contexts, chat and systems must not be empty");
  }
  return ValidateClasses(grammar);
}

absl::StatusOr<Grammar> LoadGrammar(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const Json json, ReadOrderedJsonFile(path));
  absl::StatusOr<Grammar> grammar;
  try {
    grammar = ParseGrammar(json);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  absl::Status status = grammar.ok() ? ValidateGrammar(*grammar) : grammar.status();
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", status.message()));
  return grammar;
}

}  // namespace mechinterp::trainer
