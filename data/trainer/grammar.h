#ifndef DATA_TRAINER_GRAMMAR_H_
#define DATA_TRAINER_GRAMMAR_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mechinterp::trainer {

// A thing that a request is about, with the determiners it may carry ("" for
// none): {"my", "the"} x "neighbor".
struct Object {
  std::vector<std::string> determiners;
  std::string noun;
};

// Verbs that make one kind of request with each of the objects.
struct Relation {
  std::string category;
  bool harmful = false;
  std::vector<std::string> verbs;
  std::vector<Object> objects;
  std::string steps;  // key of Grammar::steps; empty for harmful relations
};

// A way to ask; `text` holds "{request}" once. `answer` is the wording
// (key of Grammar::answers) that usually answers it.
struct Template {
  std::string text;
  std::string answer;
};

// How requests of a category are refused.
struct Category {
  std::string refusal;  // usual wording, key of Grammar::refusals
  std::vector<std::string> reasons;
};

struct ChatExample {
  std::string user;
  std::string assistant;
};

// The vocabulary of the training text, as grammar.json has it. A plain value.
struct Grammar {
  std::vector<Relation> relations;
  std::vector<Template> templates;
  std::vector<std::string> modifiers;
  // Sentences beside the request, with {object} or a harmless {request}: what
  // they mention does not count, so that words must be bound to their verb.
  std::vector<std::string> contexts;
  std::map<std::string, std::string> answers;                          // with {request}, {1}, {2}, {3}
  std::map<std::string, std::vector<std::vector<std::string>>> steps;  // three slots each
  std::map<std::string, std::string> refusals;                         // with {request}, {reason}
  std::map<std::string, Category> categories;
  std::vector<ChatExample> chat;
  std::vector<std::string> systems;
};

// Reads and checks a grammar: every key it refers to exists, every category has
// both classes, no verb-object pair is in both classes, and there is no relation
// that is harmful and has steps. Errors: NotFound, or InvalidArgument naming the
// file and the part.
absl::StatusOr<Grammar> LoadGrammar(const std::string& path);

// The checks of LoadGrammar, for grammars from elsewhere.
absl::Status ValidateGrammar(const Grammar& grammar);

// "my|the neighbor" -> {{"my", "the"}, "neighbor"}.
absl::StatusOr<Object> ParseObject(const std::string& text);

// "kill", "my", "neighbor" -> "kill my neighbor".
std::string RequestPhrase(const std::string& verb, const std::string& determiner, const std::string& noun);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_GRAMMAR_H_
