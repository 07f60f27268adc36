// What TLS and a token cost a call and a stream, and how fast activations travel.

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <ostream>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/status_macros.h"
#include "services/model/heap_trimmer.h"
#include "services/rpc/token_file.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/local_service.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

constexpr int kCalls = 1000;
constexpr char kEverything[] = "*";

// An authority, a certificate of localhost and a token, in a folder that is there.
absl::StatusOr<Security> MakeSecurity(const std::filesystem::path& folder) {
  const std::string make = absl::StrCat("bash ", ABSTRACT_SOURCE_DIR, "/deploy/tls/make_certs.sh ",
                                        folder.string(), " localhost,127.0.0.1 >/dev/null 2>&1");
  if (std::system(make.c_str()) != 0) return absl::InternalError(absl::StrCat("failed: ", make));
  Security security;
  security.tls.certificate = folder / "server.pem";
  security.tls.key = folder / "server.key";
  security.authority = folder / "ca.pem";
  security.token_file = folder / "tokens.json";
  security.token = NewToken();
  TokenRecord record;
  record.caller.name = "benchmark";
  record.sha256 = HashToken(security.token);
  record.created = absl::Now();
  ABSTRACT_RETURN_IF_ERROR(WriteTokenFile(security.token_file, {record}));
  return security;
}

// Median microseconds of a small call.
absl::StatusOr<double> CallMicroseconds(LocalService& service) {
  std::vector<double> seconds;
  for (int i = 0; i < kCalls; ++i) {
    const Clock::time_point start = Clock::now();
    ABSTRACT_RETURN_IF_ERROR(service.Ping());
    seconds.push_back(SecondsSince(start));
  }
  return 1e6 * Median(std::move(seconds));
}

// GB/s of streams of activations from their headers on, over half a second at least.
template <typename Stream>
absl::StatusOr<double> Rate(const Stream& stream) {
  Transfer all;
  do {
    ABSTRACT_ASSIGN_OR_RETURN(const Transfer one, stream());
    all.bytes += one.bytes;
    all.seconds += one.seconds;
  } while (all.seconds < 0.5);
  return static_cast<double>(all.bytes) / all.seconds / 1e9;
}

}  // namespace

absl::Status RunNetwork(const BenchmarkOptions& options, std::ostream& out) {
  PrepareHeap();  // as the server does
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / absl::StrCat("abstract-network-", ::getpid());
  std::filesystem::create_directory(folder);
  const absl::Cleanup remove = [&folder] { std::filesystem::remove_all(folder); };
  ABSTRACT_ASSIGN_OR_RETURN(const Security security, MakeSecurity(folder));
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  ABSTRACT_ASSIGN_OR_RETURN(const auto plain, LocalService::Start(model, {}));
  ABSTRACT_ASSIGN_OR_RETURN(const auto secure, LocalService::Start(model, {}, 32, security));
  const auto prompt = RandomPrompt(model->config(), options.prompt_tokens_or(400), 1);
  ABSTRACT_ASSIGN_OR_RETURN(const std::string on_plain, plain->Store(prompt, kEverything));
  ABSTRACT_ASSIGN_OR_RETURN(const std::string on_secure, secure->Store(prompt, kEverything));
  ABSTRACT_RETURN_IF_ERROR(plain->Ping());
  ABSTRACT_RETURN_IF_ERROR(secure->Ping());

  Measurements measurements;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    ABSTRACT_ASSIGN_OR_RETURN(const double plain_call, CallMicroseconds(*plain));
    ABSTRACT_ASSIGN_OR_RETURN(const double secure_call, CallMicroseconds(*secure));
    measurements.Add("a call in plain text", "us", plain_call);
    measurements.Add("a call with TLS and token", "us", secure_call);
    measurements.Add("TLS and token add", "us", secure_call - plain_call);

    ABSTRACT_ASSIGN_OR_RETURN(const double plain_rate, Rate([&] { return plain->GetActivation(on_plain); }));
    ABSTRACT_ASSIGN_OR_RETURN(const double secure_rate,
                              Rate([&] { return secure->GetActivation(on_secure); }));
    ABSTRACT_ASSIGN_OR_RETURN(const double run_rate,
                              Rate([&] { return plain->RunWithCache(prompt, kEverything); }));
    measurements.Add("a stored run, plain text", "GB/s", plain_rate);
    measurements.Add("a stored run, TLS and token", "GB/s", secure_rate);
    measurements.AddRatio("TLS and token / plain text", secure_rate, plain_rate);
    measurements.Add("RunWithCache", "GB/s", run_rate);
  }
  measurements.Print(out);
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
