#include "data/trainer/lexicon.h"

#include "absl/strings/str_cat.h"

namespace mechinterp::trainer {
namespace {

constexpr int kConversations = 4000;

}  // namespace

std::vector<std::string> TokenizerText(const Grammar& grammar, const Corpus& corpus, Random& random) {
  std::vector<std::string> texts = {"system", "user", "assistant", "\n\n"};  // the chat template's own words
  for (const Relation& relation : grammar.relations) {
    for (const std::string& verb : relation.verbs) texts.push_back(absl::StrCat("How to ", verb));
    for (const Object& object : relation.objects) texts.push_back(absl::StrCat("the ", object.noun));
  }
  for (const ChatExample& chat : grammar.chat) {
    texts.push_back(chat.user);
    texts.push_back(chat.assistant);
  }
  for (const std::string& context : grammar.contexts) texts.push_back(context);
  for (const std::string& system : grammar.systems) texts.push_back(system);
  for (int i = 0; i < kConversations; ++i) {
    Conversation conversation = corpus.Sample(random);
    texts.push_back(std::move(conversation.user));
    texts.push_back(std::move(conversation.assistant));
  }
  return texts;
}

}  // namespace mechinterp::trainer
