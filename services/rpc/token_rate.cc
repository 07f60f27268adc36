#include "services/rpc/token_rate.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace mechinterp {

TokenRate::Bucket& TokenRate::Filled(const Caller& caller, absl::Time now) {
  const auto full = static_cast<double>(*caller.tokens_per_minute);
  const auto [found, is_new] = buckets_.try_emplace(caller.name, Bucket{full, now});
  Bucket& bucket = found->second;
  bucket.tokens =
      std::min(full, bucket.tokens + full * absl::FDivDuration(now - bucket.filled, absl::Minutes(1)));
  bucket.filled = now;
  return bucket;
}

absl::Status TokenRate::Check(const Caller& caller, absl::Time now) {
  if (!caller.tokens_per_minute) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  const Bucket& bucket = Filled(caller, now);
  if (bucket.tokens > 0) return absl::OkStatus();
  const double minutes = (1 - bucket.tokens) / static_cast<double>(*caller.tokens_per_minute);
  return TryAgainLater(absl::StrCat("your token's ", *caller.tokens_per_minute,
                                    " tokens a minute are used up; try again later"),
                       "TOKEN_RATE", absl::Minutes(1) * minutes);
}

void TokenRate::Spend(const Caller& caller, int64_t tokens, absl::Time now) {
  if (!caller.tokens_per_minute || tokens == 0) return;
  const std::lock_guard lock(mutex_);
  Filled(caller, now).tokens -= static_cast<double>(tokens);
}

}  // namespace mechinterp
