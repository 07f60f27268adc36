#include "services/engine/tokenizer/chat/template_proof.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/common/text.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/chat/chat_formats.h"

namespace mechinterp::engine {
namespace {

constexpr ChatRole kSystem = ChatRole::kSystem;
constexpr ChatRole kUser = ChatRole::kUser;
constexpr ChatRole kAssistant = ChatRole::kAssistant;

// Contents that a template would not write by itself.
constexpr std::string_view kSystemText = "Qsystem0";
constexpr std::string_view kFirstText = "Quser1";
constexpr std::string_view kAnswerText = "Qanswer1";
constexpr std::string_view kSecondText = "Quser2";
constexpr std::string_view kSpace = " \n";

// The conversations from which a format is solved, in the order of ProofConversations.
enum Probe {
  kOneUser,
  kTwoTurns,
  kClosed,
  kTwoUsers,
  kWithSystem,
  kSystemTwoTurns,
  kLaterSystem,
  kSpacesInUser,
  kSpacesInAssistant,
  kSpacesInSystem,
  kProbeCount
};

std::vector<Conversation> Probes() {
  const ChatMessage system = {kSystem, std::string(kSystemText)};
  const ChatMessage first = {kUser, std::string(kFirstText)};
  const ChatMessage answer = {kAssistant, std::string(kAnswerText)};
  const ChatMessage second = {kUser, std::string(kSecondText)};
  const auto spaced = [](ChatMessage message) {
    message.content = absl::StrCat(AbslView(kSpace), message.content, AbslView(kSpace));
    return message;
  };
  return {
      {{first}},
      {{first, answer, second}},
      {{first, answer}, false},
      {{first, second}},
      {{system, first}},
      {{system, first, answer, second}},
      {{first, system, second}},
      {{spaced(first)}},
      {{first, spaced(answer), second}},
      {{spaced(system), first}},
  };
}

std::vector<Conversation> Battery() {
  const std::string spaced = " \n Two\nlines. \t\n";
  return {
      {{{kUser, "Hello."}}},
      {{{kUser, spaced}}},
      {{{kUser, "Hello."}, {kAssistant, "Hi!"}, {kUser, "How are you?"}}},
      {{{kUser, spaced}, {kAssistant, spaced}, {kUser, spaced}, {kAssistant, "Fine."}, {kUser, "Good."}}},
      {{{kSystem, "Be brief."}, {kUser, "Hello."}}},
      {{{kSystem, spaced}, {kUser, spaced}}},
      {{{kSystem, " \n"}, {kUser, "Hello."}}},
      {{{kSystem, "Be brief."},
        {kUser, "Hello."},
        {kAssistant, "Hi!"},
        {kUser, "Why?"},
        {kAssistant, spaced},
        {kUser, "So?"}}},
      {{{kUser, "Hello."}, {kUser, "Hello?"}}},
      {{{kAssistant, "Hi!"}, {kUser, "Hello."}}},
      {{{kUser, "Hello."}, {kAssistant, "Hi!"}, {kAssistant, "There."}, {kUser, "Why?"}}},
      {{{kSystem, "Be brief."}, {kAssistant, "Hi!"}, {kUser, "Why?"}}},
      {{{kUser, "Hello."}, {kSystem, spaced}, {kUser, "Why?"}}},
      {{{kUser, "Hello."}, {kSystem, "Be kind."}}},
      {{{kSystem, "Be brief."}, {kSystem, "Be kind."}, {kUser, "Why?"}}},
      {{{kSystem, "Be brief."}}},
      {{{kUser, "Hello."}, {kAssistant, "<think>\nHm.\n</think>\n\nHi!"}, {kUser, "Why?"}}},
      {{{kSystem, "<<SYS>> [INST] {{ x }} </s>"},
        {kUser, "It's \"<|im_start|>\" {% x %} <b> [/INST] \\n"},
        {kAssistant, "[INST] <|eot_id|> \u00e9\u65e5"},
        {kUser, "<think>x</think> /no_think"}}},
  };
}

std::string Describe(const Conversation& conversation) {
  std::string text;
  for (const ChatMessage& message : conversation.messages) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", AbslView(RoleName(message.role)), " ",
                    absl::CHexEscape(message.content));
  }
  return text;
}

std::string Excerpt(std::string_view text) { return Shortened(absl::CHexEscape(AbslView(text)), 400); }

// How a template that raised is told of.
std::string Raised(const Rendering& rendering) {
  return rendering.error.empty() ? "raises an error" : absl::StrCat("raises: ", Excerpt(rendering.error));
}

// The first conversation of the battery that the format takes and writes otherwise than
// the template.
std::optional<size_t> FirstDifference(const ChatFormat& format, const std::vector<Rendering>& renderings) {
  const std::vector<Conversation>& conversations = ProofConversations();
  for (size_t i = kProbeCount; i < conversations.size(); ++i) {
    const absl::StatusOr<WrittenChat> written = WriteChat(format, conversations[i].messages);
    if (written.ok() && renderings[i] != written->Text()) return i;
  }
  return std::nullopt;
}

// What stands before and after the only occurrence of `needle`.
struct Halves {
  std::string_view before, after;
};
std::optional<Halves> SplitAt(std::string_view text, std::string_view needle) {
  const size_t at = text.find(needle);
  if (at == std::string_view::npos || text.find(needle, at + 1) != std::string_view::npos)
    return std::nullopt;
  return Halves{text.substr(0, at), text.substr(at + needle.size())};
}

bool StartsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}
bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}
std::string_view CommonPrefix(std::string_view a, std::string_view b) {
  return a.substr(
      0, static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin()));
}

// Solves the equations that the probes' renderings are.
class Solver {
 public:
  explicit Solver(const std::vector<Rendering>& renderings) : renderings_(renderings) {}

  absl::StatusOr<ChatFormat> Solve() && {
    format_.name = "published";
    ABSTRACT_RETURN_IF_ERROR(SolveTurns());
    ABSTRACT_RETURN_IF_ERROR(SolveSystem());
    SolveTrimming();
    SolveLaterSystem();
    Restrict();
    return std::move(format_);
  }

 private:
  // What a probe wrote; empty where the template raised an error.
  std::string_view Text(Probe probe) const {
    return renderings_[probe] ? std::string_view(*renderings_[probe]) : std::string_view();
  }

  absl::Status Unsolved(Probe probe, std::string_view why) const {
    return absl::InvalidArgumentError(
        absl::StrCat(AbslView(why), " in the conversation: ", Describe(ProofConversations()[probe]),
                     renderings_[probe] ? absl::StrCat("; it writes ", Excerpt(*renderings_[probe]))
                                        : absl::StrCat("; it ", Raised(renderings_[probe]))));
  }

  // one user:      begin user.before | user.after opening
  // two turns:     ... | user.after assistant.before | assistant.after user.before | ...
  // closed:        ... | assistant.after
  absl::Status SolveTurns() {
    const auto one = SplitAt(Text(kOneUser), kFirstText);
    if (!one) return Unsolved(kOneUser, "it does not write the content once");
    const auto first = SplitAt(Text(kTwoTurns), kFirstText);
    const auto answer = first ? SplitAt(first->after, kAnswerText) : std::nullopt;
    const auto second = answer ? SplitAt(answer->after, kSecondText) : std::nullopt;
    if (!second) return Unsolved(kTwoTurns, "it does not write each content once, in order");
    if (first->before != one->before || second->after != one->after) {
      return Unsolved(kTwoTurns, "a turn's frame depends on what other turns there are");
    }
    const auto closed = SplitAt(Text(kClosed), kAnswerText);
    if (!closed || !StartsWith(second->before, closed->after)) {
      return Unsolved(kClosed, "an answer is closed otherwise at the end than before the next turn");
    }
    const std::string_view user_before = second->before.substr(closed->after.size());
    if (!EndsWith(one->before, user_before)) {
      return Unsolved(kTwoTurns, "the first turn of a user is opened otherwise than the second");
    }
    const std::string_view user_after = UserAfter(one->after, answer->before, user_before);
    format_.begin = one->before.substr(0, one->before.size() - user_before.size());
    format_.user.before = user_before;
    format_.user.after = user_after;
    format_.opening = one->after.substr(user_after.size());
    format_.assistant.before = answer->before.substr(user_after.size());
    format_.assistant.after = closed->after;
    return absl::OkStatus();
  }

  // Between two users' messages stands user.after user.before. Where there can be none,
  // an assistant's turn always follows, and any common part will do.
  std::string_view UserAfter(std::string_view before_end, std::string_view before_answer,
                             std::string_view user_before) const {
    const auto first = SplitAt(Text(kTwoUsers), kFirstText);
    const auto second = first ? SplitAt(first->after, kSecondText) : std::nullopt;
    if (second && EndsWith(second->before, user_before)) {
      const std::string_view after = second->before.substr(0, second->before.size() - user_before.size());
      if (StartsWith(before_end, after) && StartsWith(before_answer, after)) return after;
    }
    return CommonPrefix(before_end, before_answer);
  }

  absl::Status SolveSystem() {
    const auto system = SplitAt(Text(kWithSystem), kSystemText);
    const auto first = system ? SplitAt(system->after, kFirstText) : std::nullopt;
    if (!first) {  // left out, or an error
      format_.system_placement = SystemPlacement::kNone;
      return absl::OkStatus();
    }
    if (EndsWith(first->before, format_.user.before)) {
      return SolveSystemTurn(system->before,
                             first->before.substr(0, first->before.size() - format_.user.before.size()));
    }
    const std::string opened = format_.begin + format_.user.before;
    if (!StartsWith(system->before, opened)) {
      return Unsolved(kWithSystem, "the system message changes how the user's is opened");
    }
    format_.system.before = system->before.substr(opened.size());
    format_.system.after = first->before;
    const size_t first_turn = Text(kSystemTwoTurns).find(kFirstText);
    const size_t at = Text(kSystemTwoTurns).find(kSystemText);
    if (at == std::string_view::npos || first_turn == std::string_view::npos) {
      return Unsolved(kSystemTwoTurns, "the system message is not where it is in a shorter one");
    }
    format_.system_placement =
        at < first_turn ? SystemPlacement::kFirstUserTurn : SystemPlacement::kLastUserTurn;
    return absl::OkStatus();
  }

  // `before`: from the start of the prompt.
  absl::Status SolveSystemTurn(std::string_view before, std::string_view after) {
    format_.system.after = after;
    if (StartsWith(before, format_.begin)) {
      format_.system.before = before.substr(format_.begin.size());
      return absl::OkStatus();
    }
    const std::string begin = format_.begin;  // has a system turn of its own
    if (begin.size() < before.size() + after.size() || !StartsWith(begin, before) ||
        !EndsWith(begin, after)) {
      return Unsolved(kWithSystem, "a system message changes how the prompt begins");
    }
    format_.default_system = begin.substr(before.size(), begin.size() - before.size() - after.size());
    format_.system.before = before;
    format_.begin.clear();
    return absl::OkStatus();
  }

  void SolveTrimming() {
    const auto trims = [&](Probe probe, std::string_view content) {
      const std::string spaced = absl::StrCat(AbslView(kSpace), AbslView(content), AbslView(kSpace));
      return Text(probe).find(spaced) == std::string_view::npos;
    };
    format_.user.trims = trims(kSpacesInUser, kFirstText);
    format_.assistant.trims = trims(kSpacesInAssistant, kAnswerText);
    format_.system.trims = trims(kSpacesInSystem, kSystemText);
  }

  void SolveLaterSystem() {
    const auto first = SplitAt(Text(kLaterSystem), kFirstText);
    const auto system = first ? SplitAt(first->after, kSystemText) : std::nullopt;
    const auto second = system ? SplitAt(system->after, kSecondText) : std::nullopt;
    if (!second) return;
    const std::string_view before = system->before;
    const std::string_view after = second->before;
    if (!StartsWith(before, format_.user.after) || !EndsWith(after, format_.user.before)) return;
    format_.later_system = ChatTurn{std::string(before.substr(format_.user.after.size())),
                                    std::string(after.substr(0, after.size() - format_.user.before.size())),
                                    format_.system.trims};
  }

  // Takes from the format, one after the other, what the template writes otherwise or
  // not at all, until it passes.
  void Restrict() {
    if (!FirstDifference(format_, renderings_)) return;
    const auto passes_with = [&](const ChatFormat& restricted) {
      const bool passes = !FirstDifference(restricted, renderings_);
      if (passes) format_ = restricted;
      return passes;
    };
    // Few of them, so that every combination can be tried, the freest first.
    for (int restrictions = 1; restrictions < 16; ++restrictions) {
      ChatFormat restricted = format_;
      if (restrictions & 1) restricted.takes_reasoning = false;
      if (restrictions & 2) restricted.needs_user = true;
      if (restrictions & (4 | 8)) restricted.later_system.reset();
      if (restrictions & 8) restricted.alternates = true;
      if (passes_with(restricted)) return;
    }
  }

  const std::vector<Rendering>& renderings_;
  ChatFormat format_;
};

}  // namespace

const std::vector<Conversation>& ProofConversations() {
  static const auto& conversations = *[] {
    auto* all = new std::vector<Conversation>(Probes());
    for (Conversation& conversation : Battery()) all->push_back(std::move(conversation));
    return all;
  }();
  return conversations;
}

absl::StatusOr<ChatFormat> FindProvenFormat(const std::vector<Rendering>& renderings) {
  for (const ChatFormat& format : KnownChatFormats()) {
    if (!FirstDifference(format, renderings)) return format;
  }
  ABSTRACT_ASSIGN_OR_RETURN(ChatFormat format, Solver(renderings).Solve());
  const std::optional<size_t> difference = FirstDifference(format, renderings);
  if (!difference) return format;
  const Conversation& conversation = ProofConversations()[*difference];
  return absl::InvalidArgumentError(
      absl::StrCat("in the conversation: ", Describe(conversation), "; it ",
                   renderings[*difference] ? "writes " + Excerpt(*renderings[*difference])
                                           : Raised(renderings[*difference]),
                   ", and not ", Excerpt(WriteChat(format, conversation.messages)->Text())));
}

}  // namespace mechinterp::engine
