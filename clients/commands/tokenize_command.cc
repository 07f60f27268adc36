#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/commands/prompt_flags.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/lib/selectors.h"
#include "clients/lib/text_table.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

struct TokenizeFlags {
  PromptFlags prompt;
  bool omit_begin_of_text = false;
  std::string decode;
  bool ids_only = false;
};

std::string TableOf(const v1::TokenizeResponse& response) {
  TextTable table({"position", "from the end", "id", "piece"});
  table.AlignLeft({3});
  const int count = response.ids_size();
  for (int i = 0; i < count; ++i) {
    const bool marked = response.has_last_instruction_position() &&
                        static_cast<int>(response.last_instruction_position()) == i;
    table.AddRow({absl::StrCat(i), absl::StrCat(i - count), absl::StrCat(response.ids(i)),
                  absl::StrCat(Visible(response.pieces(i)), marked ? "  <- last instruction token" : "")});
  }
  return table.ToString();
}

absl::Status Decode(Tool& tool, Session& session, const std::string& list) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, ParseIndices(list));
  v1::DetokenizeRequest request;
  request.mutable_ids()->Add(ids.begin(), ids.end());
  ABSTRACT_ASSIGN_OR_RETURN(const v1::DetokenizeResponse response, session.client().Detokenize(request));
  if (tool.json) return PrintJson(tool, response);
  tool.streams.out << response.text() << std::endl;
  return absl::OkStatus();
}

absl::Status RunTokenize(Tool& tool, const TokenizeFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "tokenize"));
  if (!flags.decode.empty()) return Decode(tool, *session, flags.decode);
  v1::TokenizeRequest request;
  ABSTRACT_ASSIGN_OR_RETURN(*request.mutable_prompt(), flags.prompt.Read(tool.streams.in));
  request.set_omit_begin_of_text(flags.omit_begin_of_text);
  ABSTRACT_ASSIGN_OR_RETURN(const v1::TokenizeResponse response, session->client().Tokenize(request));
  if (tool.json) return PrintJson(tool, response);
  if (flags.ids_only) {
    tool.streams.out << absl::StrJoin(response.ids(), ",") << std::endl;
  } else {
    tool.Print(TableOf(response));
  }
  return absl::OkStatus();
}

}  // namespace

void AddTokenizeCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand("tokenize", "Show a prompt's tokens, or the text of token ids");
  const auto flags = std::make_shared<TokenizeFlags>();
  flags->prompt.AddTo(command);
  command.AddFlag("--omit-begin-of-text", flags->omit_begin_of_text, "With --raw: no begin-of-text in front");
  command.AddOption("--decode", flags->decode, "Print the text of these token ids instead, as in 1,2,3");
  command.AddFlag("--ids", flags->ids_only, "Print only the ids, as --token-ids takes them");
  tool.SetActionOf(command, [&tool, flags] { return RunTokenize(tool, *flags); });
}

}  // namespace mechinterp
