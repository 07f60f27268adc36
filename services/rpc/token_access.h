#ifndef SERVICES_RPC_TOKEN_ACCESS_H_
#define SERVICES_RPC_TOKEN_ACCESS_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "services/rpc/access_control.h"
#include "services/rpc/token_file.h"

namespace mechinterp {

// Bearer tokens of a file, which is read again when it changes. A file that has become wrong
// leaves the tokens as they were, with a line in the log. Thread-safe.
class TokenAccess final : public AccessControl {
 public:
  using Clock = std::function<absl::Time()>;

  // Errors: as ReadTokenFile.
  static absl::StatusOr<std::shared_ptr<TokenAccess>> Open(const std::string& path, Clock clock = absl::Now);

  // The metadata is "Bearer <token>". Compared in constant time with every token there is.
  absl::StatusOr<Caller> Identify(const std::string& authorization, const std::string& host) override;
  absl::Status Recheck(const Caller& caller) override;

 private:
  struct Failures {
    int count = 0;
    absl::Time since;
  };

  TokenAccess(std::string path, Clock clock) : path_(std::move(path)), clock_(std::move(clock)) {}

  // With the lock held.
  void ReloadIfChanged(absl::Time now);
  absl::Status CountFailure(const std::string& host, absl::Time now);

  const std::string path_;
  const Clock clock_;
  std::mutex mutex_;
  std::vector<TokenRecord> tokens_;
  std::string version_;  // of the file that was read last
  absl::Time checked_ = absl::InfinitePast();
  std::map<std::string, Failures> failures_;  // by host
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_TOKEN_ACCESS_H_
