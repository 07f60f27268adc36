#include "services/rpc/token_access.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

constexpr absl::Duration kCheckInterval = absl::Milliseconds(500);
// From one host; beyond them it is told to wait.
constexpr int kMostFailures = 10;
constexpr absl::Duration kFailureWindow = absl::Minutes(1);
constexpr size_t kMostHosts = 10'000;  // remembered
constexpr size_t kMaxTokenBytes = 1024;

absl::Status NotIdentified(const std::string& problem) {
  return ErrorWithReason(absl::StatusCode::kUnauthenticated, problem, "UNAUTHENTICATED");
}

// Changes whenever the file does; empty where there is none.
std::string VersionOf(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return "";
#ifdef __APPLE__
  const timespec changed = info.st_mtimespec;
#else
  const timespec changed = info.st_mtim;
#endif
  return absl::StrCat(info.st_ino, "/", info.st_size, "/", changed.tv_sec, ".", changed.tv_nsec);
}

std::string TokenOf(const std::string& authorization) {
  constexpr char kScheme[] = "bearer ";
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return "";
  return std::string(
      absl::StripAsciiWhitespace(absl::string_view(authorization).substr(sizeof(kScheme) - 1)));
}

bool IsExpired(const TokenRecord& token, absl::Time now) { return token.expires && *token.expires <= now; }

}  // namespace

absl::StatusOr<std::shared_ptr<TokenAccess>> TokenAccess::Open(const std::string& path, Clock clock) {
  auto access = std::shared_ptr<TokenAccess>(new TokenAccess(path, std::move(clock)));
  access->version_ = VersionOf(path);
  ABSTRACT_ASSIGN_OR_RETURN(access->tokens_, ReadTokenFile(path));
  return access;
}

void TokenAccess::ReloadIfChanged(absl::Time now) {
  if (now < checked_ + kCheckInterval && now >= checked_) return;
  checked_ = now;
  const std::string version = VersionOf(path_);
  if (version == version_) return;
  version_ = version;
  absl::StatusOr<std::vector<TokenRecord>> tokens = ReadTokenFile(path_);
  if (!tokens.ok()) {
    spdlog::warn("the tokens stay as they were: {}", DescribeStatus(tokens.status()));
    return;
  }
  tokens_ = *std::move(tokens);
  spdlog::info("read {} tokens", tokens_.size());
}

absl::Status TokenAccess::CountFailure(const std::string& host, absl::Time now) {
  if (failures_.size() >= kMostHosts) failures_.clear();
  Failures& failures = failures_[host];
  if (failures.count == 0 || now - failures.since > kFailureWindow) failures = {0, now};
  if (++failures.count <= kMostFailures) {
    return NotIdentified("the call has no valid token; send one as \"authorization: Bearer TOKEN\"");
  }
  return TryAgainLater("too many calls without a valid token came from your address", "TOO_MANY_FAILURES",
                       failures.since + kFailureWindow - now);
}

absl::StatusOr<Caller> TokenAccess::Identify(const std::string& authorization, const std::string& host) {
  const std::string token = TokenOf(authorization);
  const std::string hash = token.size() > kMaxTokenBytes ? "" : HashToken(token);
  const std::lock_guard lock(mutex_);
  const absl::Time now = clock_();
  ReloadIfChanged(now);
  const TokenRecord* found = nullptr;
  for (const TokenRecord& record : tokens_) {
    // All are compared, each whole: how long it takes tells nothing.
    const bool is_same = hash.size() == record.sha256.size() &&
                         CRYPTO_memcmp(hash.data(), record.sha256.data(), hash.size()) == 0;
    if (is_same) found = &record;
  }
  if (token.empty() || found == nullptr || IsExpired(*found, now)) return CountFailure(host, now);
  return found->caller;
}

absl::Status TokenAccess::Recheck(const Caller& caller) {
  if (!caller.has_token) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  const absl::Time now = clock_();
  ReloadIfChanged(now);
  const auto found = std::find_if(tokens_.begin(), tokens_.end(), [&](const TokenRecord& record) {
    return record.caller.name == caller.name;
  });
  if (found != tokens_.end() && !IsExpired(*found, now)) return absl::OkStatus();
  return NotIdentified("the token is no longer valid");
}

}  // namespace mechinterp
