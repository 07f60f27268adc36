// A file of tokens, which say who may call a server.

#include <cmath>
#include <string>

#include "absl/time/time.h"
#include "services/rpc/token_file.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp {
namespace {

using fuzz::Require;

bool IsSame(const TokenRecord& a, const TokenRecord& b) {
  const Caller &x = a.caller, &y = b.caller;
  return a.sha256 == b.sha256 && a.created == b.created && a.expires == b.expires && x.name == y.name &&
         x.priority == y.priority && x.weight == y.weight && x.read_only == y.read_only &&
         x.max_requests == y.max_requests && x.max_stored_bytes == y.max_stored_bytes &&
         x.tokens_per_minute == y.tokens_per_minute;
}

void CheckToken(const TokenRecord& token) {
  const Caller& caller = token.caller;
  Require(caller.has_token && !caller.name.empty() && caller.owner() == caller.name, "a token has a name");
  Require(token.sha256.size() == 64, "a token has a hash");
  Require(caller.weight > 0 && std::isfinite(caller.weight), "a weight is a number above 0");
  Require(caller.max_requests.value_or(1) > 0 && caller.max_stored_bytes.value_or(1) > 0 &&
              caller.tokens_per_minute.value_or(1) > 0,
          "limits are above 0");
}

}  // namespace
}  // namespace mechinterp

ABSTRACT_FUZZ_TARGET(token_file) {
  using namespace mechinterp;
  const std::string path = fuzz::ScratchFile("tokens.json", input);
  const auto tokens = ReadTokenFile(path);
  if (!tokens.ok()) return fuzz::RequireRefusal(tokens.status(), path);
  for (const TokenRecord& token : *tokens) CheckToken(token);
  fuzz::RequireOk(WriteTokenFile(path, *tokens), "what was read can be written");
  const auto again = ReadTokenFile(path);
  fuzz::RequireOk(again.status(), "what was written can be read");
  fuzz::Require(again->size() == tokens->size(), "as many tokens come back");
  for (size_t i = 0; i < tokens->size(); ++i) {
    fuzz::Require(IsSame((*tokens)[i], (*again)[i]), "each token comes back");
  }
}
