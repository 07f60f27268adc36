#ifndef SERVICES_RPC_TOKEN_FILE_H_
#define SERVICES_RPC_TOKEN_FILE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/rpc/caller.h"

namespace mechinterp {

// A token as the file has it. What a client sends is never stored, only its hash: tokens are 256
// random bits, so a plain SHA-256 cannot be searched.
struct TokenRecord {
  Caller caller;       // what its bearer is and may
  std::string sha256;  // 64 lower-case hex digits
  absl::Time created;
  std::optional<absl::Time> expires;
};

// Files of tokens: JSON that people may edit,
//
//   {"tokens": [{"name": "alice", "sha256": "…", "created": "2026-11-30T12:00:00Z"}]}
//
// where each may have `expires` (RFC 3339), `access` ("full", "read-only"), `priority`
// ("interactive", "batch", "bulk"), `weight`, `max_requests`, `max_stored_bytes` and
// `tokens_per_minute`. Errors: InvalidArgument, naming the file and the entry; else the reader's
// (json_file.h). Thread-safe.
absl::StatusOr<std::vector<TokenRecord>> ReadTokenFile(const std::string& path);
// Readable by its owner alone; at once or not at all.
absl::Status WriteTokenFile(const std::string& path, const std::vector<TokenRecord>& tokens);

// A new secret: what a client presents.
std::string NewToken();
// Its hash, as in the file.
std::string HashToken(const std::string& token);

// "interactive", "batch", "bulk".
std::string PriorityName(Priority priority);
std::optional<Priority> PriorityOfName(const std::string& name);

}  // namespace mechinterp

#endif  // SERVICES_RPC_TOKEN_FILE_H_
