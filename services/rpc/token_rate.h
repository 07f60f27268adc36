#ifndef SERVICES_RPC_TOKEN_RATE_H_
#define SERVICES_RPC_TOKEN_RATE_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/rpc/caller.h"

namespace mechinterp {

// What callers may use of `Caller::tokens_per_minute`: a bucket each that holds a minute's worth
// and fills again steadily. What a call uses is known when it ends, so a bucket may come to owe;
// its caller waits until that is paid. Thread-safe.
class TokenRate {
 public:
  // RESOURCE_EXHAUSTED with RetryInfo, reason TOKEN_RATE, while the caller's bucket is empty.
  absl::Status Check(const Caller& caller, absl::Time now);
  void Spend(const Caller& caller, int64_t tokens, absl::Time now);

 private:
  struct Bucket {
    double tokens = 0;
    absl::Time filled;
  };
  // With the lock held.
  Bucket& Filled(const Caller& caller, absl::Time now);

  std::mutex mutex_;
  std::map<std::string, Bucket> buckets_;  // of callers that have a limit: as many as there are tokens
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_TOKEN_RATE_H_
