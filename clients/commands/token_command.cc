#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/commands/tool.h"
#include "clients/lib/text_table.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/rpc/token_file.h"

namespace mechinterp {
namespace {

enum class TokenAction { kCreate, kList, kRevoke };

struct TokenFlags {
  TokenAction action = TokenAction::kList;
  std::string name;
  std::string tokens = "tokens.json";
  // Of a new one; 0: no limit.
  Priority priority = Priority::kInteractive;
  bool read_only = false;
  double weight = 1;
  int max_requests = 0;
  long long max_stored_bytes = 0;
  long long tokens_per_minute = 0;
  int days = 0;
};

// No file yet is one without tokens, where one is to be made.
absl::StatusOr<std::vector<TokenRecord>> ReadOrBegin(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const bool exists, FileExists(path));
  if (!exists) return std::vector<TokenRecord>();
  return ReadTokenFile(path);
}

auto Named(const std::string& name) {
  return [&name](const TokenRecord& token) { return token.caller.name == name; };
}

template <typename Number>
std::optional<Number> LimitOf(Number flag) {
  return flag > 0 ? std::optional<Number>(flag) : std::nullopt;
}

absl::Status Create(const Tool& tool, const TokenFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<TokenRecord> tokens, ReadOrBegin(flags.tokens));
  if (std::any_of(tokens.begin(), tokens.end(), Named(flags.name))) {
    return absl::AlreadyExistsError(absl::StrCat(flags.tokens, " has a token called ", flags.name,
                                                 "; revoke it first, or choose another name"));
  }
  const std::string token = NewToken();
  TokenRecord record;
  record.sha256 = HashToken(token);
  record.created = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
  if (flags.days > 0) record.expires = record.created + absl::Hours(24) * flags.days;
  Caller& caller = record.caller;
  caller.name = flags.name;
  caller.has_token = true;
  caller.priority = flags.priority;
  caller.read_only = flags.read_only;
  caller.weight = flags.weight;
  caller.max_requests = LimitOf(flags.max_requests);
  caller.max_stored_bytes = LimitOf<int64_t>(flags.max_stored_bytes);
  caller.tokens_per_minute = LimitOf<int64_t>(flags.tokens_per_minute);
  tokens.push_back(record);
  ABSTRACT_RETURN_IF_ERROR(WriteTokenFile(flags.tokens, tokens));
  // Refused by the reader, it is not to stay in the file.
  if (absl::Status status = ReadTokenFile(flags.tokens).status(); !status.ok()) {
    tokens.pop_back();
    ABSTRACT_RETURN_IF_ERROR(WriteTokenFile(flags.tokens, tokens));
    return status;
  }
  tool.Note(absl::StrCat("the token of ", flags.name,
                         ", which nobody can show again; servers started with --tokens ", flags.tokens,
                         " take it at once:"));
  tool.streams.out << token << std::endl;
  return absl::OkStatus();
}

absl::Status List(const Tool& tool, const TokenFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenRecord> tokens, ReadTokenFile(flags.tokens));
  TextTable table(
      {"name", "access", "priority", "weight", "requests", "stored bytes", "tokens a minute", "expires"});
  table.AlignLeft({1, 2, 7});
  const auto limit = [](const auto& value) { return value ? absl::StrCat(*value) : std::string("-"); };
  for (const TokenRecord& token : tokens) {
    const Caller& caller = token.caller;
    std::string expires =
        token.expires ? absl::FormatTime("%Y-%m-%d", *token.expires, absl::UTCTimeZone()) : "-";
    if (token.expires && *token.expires <= absl::Now()) expires += " (over)";
    table.AddRow({caller.name, caller.read_only ? "read-only" : "full", PriorityName(caller.priority),
                  absl::StrCat(caller.weight), limit(caller.max_requests), limit(caller.max_stored_bytes),
                  limit(caller.tokens_per_minute), expires});
  }
  tool.Print(table.ToString());
  return absl::OkStatus();
}

absl::Status Revoke(const Tool& tool, const TokenFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<TokenRecord> tokens, ReadTokenFile(flags.tokens));
  const auto end = std::remove_if(tokens.begin(), tokens.end(), Named(flags.name));
  if (end == tokens.end()) {
    return absl::NotFoundError(absl::StrCat(flags.tokens, " has no token called ", flags.name));
  }
  tokens.erase(end, tokens.end());
  ABSTRACT_RETURN_IF_ERROR(WriteTokenFile(flags.tokens, tokens));
  tool.Note(absl::StrCat("revoked; calls of ", flags.name, " that are in progress end within seconds"));
  return absl::OkStatus();
}

absl::Status RunToken(const Tool& tool, const TokenFlags& flags) {
  if (flags.action == TokenAction::kList) return List(tool, flags);
  if (flags.name.empty()) return absl::InvalidArgumentError("the token's NAME is missing");
  return flags.action == TokenAction::kCreate ? Create(tool, flags) : Revoke(tool, flags);
}

}  // namespace

void AddTokenCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "token", "Make, list and revoke the tokens that a server started with --tokens wants");
  const auto flags = std::make_shared<TokenFlags>();
  command
      .AddChoice(
          "action", flags->action,
          {{"create", TokenAction::kCreate}, {"list", TokenAction::kList}, {"revoke", TokenAction::kRevoke}},
          "create, list or revoke")
      .Required();
  command.AddOption("name", flags->name, "Whose it is: a word, as it shall stand in logs and metrics");
  command.AddOption("--tokens", flags->tokens, "The file of tokens; only hashes are kept in it");
  command.AddChoice(
      "--priority", flags->priority,
      {{"interactive", Priority::kInteractive}, {"batch", Priority::kBatch}, {"bulk", Priority::kBulk}},
      "The most urgent that its requests may be");
  command.AddFlag("--read-only", flags->read_only, "It may look and run, but neither store nor delete");
  command.AddOption("--weight", flags->weight, "Its share when several want the engine: twice as much for 2")
      .InRange(0.01, 100.0);
  command
      .AddOption("--max-requests", flags->max_requests,
                 "Requests in progress and waiting; 0: no limit of its own")
      .NonNegative();
  command
      .AddOption("--max-stored-bytes", flags->max_stored_bytes, "Activations stored, as in 2GB; 0: no limit")
      .ByteSuffixes(ByteUnits::kKiloIs1000);
  command.AddOption("--tokens-per-minute", flags->tokens_per_minute, "Of prompts and answers; 0: no limit")
      .NonNegative();
  command.AddOption("--days", flags->days, "Days until it expires; 0: never").InRange(0, 36'500);
  tool.SetActionOf(command, [&tool, flags] { return RunToken(tool, *flags); });
}

}  // namespace mechinterp
