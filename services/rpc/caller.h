#ifndef SERVICES_RPC_CALLER_H_
#define SERVICES_RPC_CALLER_H_

#include <cstdint>
#include <optional>
#include <string>

namespace mechinterp {

// Which work goes first when there is more than can run.
enum class Priority {
  kInteractive,  // somebody waits for the answer
  kBatch,        // sweeps and other runs of many
  kBulk,         // what may take all night
};
inline constexpr int kPriorityCount = 3;

// Who makes a call, and what they may take. Unset limits are the server's own.
struct Caller {
  // The token's name; where there are no tokens, the address that the call comes from.
  std::string name;
  bool has_token = false;
  // The most urgent that this caller's work may be.
  Priority priority = Priority::kInteractive;
  // Of the engine's time when several want it: twice the share for 2. Above 0.
  double weight = 1;
  // May look and run, but neither store nor delete.
  bool read_only = false;
  std::optional<int> max_requests;           // in progress and queued
  std::optional<int64_t> max_stored_bytes;   // of activations
  std::optional<int64_t> tokens_per_minute;  // of prompts and continuations

  // Whose the things are that this caller stores: empty without tokens, where all share.
  const std::string& owner() const {
    static const std::string nobody;
    return has_token ? name : nobody;
  }
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_CALLER_H_
