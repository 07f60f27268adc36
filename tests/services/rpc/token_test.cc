#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "services/common/status.h"
#include "services/rpc/token_access.h"
#include "services/rpc/token_file.h"
#include "services/rpc/token_rate.h"
#include "tests/services/rpc/fake_service.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

class TokenTest : public ::testing::Test {
 protected:
  ~TokenTest() override { std::filesystem::remove_all(folder_); }

  // A token of this name in the file, with other changes to its record.
  std::string Create(const std::string& name, const std::function<void(TokenRecord&)>& change = nullptr) {
    const std::string token = NewToken();
    TokenRecord record;
    record.caller.name = name;
    record.caller.has_token = true;
    record.sha256 = HashToken(token);
    record.created = absl::FromUnixSeconds(1'800'000'000);
    if (change) change(record);
    records_.push_back(record);
    Save();
    return token;
  }
  void Revoke(const std::string& name) {
    std::erase_if(records_, [&](const TokenRecord& record) { return record.caller.name == name; });
    Save();
  }
  void Save() { EXPECT_THAT(WriteTokenFile(path_, records_), IsOk()); }

  std::shared_ptr<TokenAccess> Access() {
    auto access = TokenAccess::Open(path_, [this] { return now_; });
    EXPECT_THAT(access, IsOk());
    return *access;
  }

  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / absl::StrCat("tokens-", absl::ToUnixNanos(absl::Now()));
  const std::string path_ = folder_ / "tokens.json";
  std::vector<TokenRecord> records_;
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'100);
};

TEST_F(TokenTest, AreKeptAsHashesForTheirOwnerAlone) {
  const std::string token = Create("alice", [](TokenRecord& record) {
    record.expires = absl::FromUnixSeconds(1'900'000'000);
    record.caller.read_only = true;
    record.caller.priority = Priority::kBatch;
    record.caller.weight = 2.5;
    record.caller.max_requests = 3;
    record.caller.max_stored_bytes = int64_t{5} << 40;
    record.caller.tokens_per_minute = 100;
  });
  std::ifstream file(path_);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(text, AllOf(HasSubstr("alice"), HasSubstr(HashToken(token)), Not(HasSubstr(token))));
  struct stat info {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);

  const auto read = ReadTokenFile(path_);
  ASSERT_THAT(read, IsOk());
  ASSERT_THAT(*read, SizeIs(1));
  const TokenRecord& record = read->front();
  EXPECT_EQ(record.caller.name, "alice");
  EXPECT_EQ(record.expires, absl::FromUnixSeconds(1'900'000'000));
  EXPECT_TRUE(record.caller.read_only);
  EXPECT_EQ(record.caller.priority, Priority::kBatch);
  EXPECT_EQ(record.caller.weight, 2.5);
  EXPECT_EQ(record.caller.max_requests, 3);
  EXPECT_EQ(record.caller.max_stored_bytes, int64_t{5} << 40);
  EXPECT_EQ(record.caller.tokens_per_minute, 100);
}

// Revoking one token writes the others again.
TEST_F(TokenTest, KeepTheirTimesWhenTheFileIsWrittenAgain) {
  const absl::Time half = absl::FromUnixMillis(1'900'000'000'500);
  Create("alice", [&](TokenRecord& record) {
    record.created = half;
    record.expires = half;
  });
  Create("bob", [](TokenRecord& record) { record.expires = absl::FromUnixSeconds(1'900'000'000); });
  const auto read = ReadTokenFile(path_);
  ASSERT_THAT(read, IsOk());
  ASSERT_THAT(*read, SizeIs(2));
  EXPECT_EQ((*read)[0].created, half);
  EXPECT_EQ((*read)[0].expires, half);
  EXPECT_EQ((*read)[1].expires, absl::FromUnixSeconds(1'900'000'000));
  std::ifstream file(path_);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(text, AllOf(HasSubstr("\"2030-03-17T17:46:40.5Z\""), HasSubstr("\"2030-03-17T17:46:40Z\"")));
}

TEST(NewToken, IsNeverTheSame) {
  EXPECT_NE(NewToken(), NewToken());
  EXPECT_THAT(NewToken(), SizeIs(9 + 64));
}

// Of the standard's examples (FIPS 180-2, B.1).
TEST(HashToken, IsSha256) {
  EXPECT_EQ(HashToken("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(TokenTest, NamesWhatIsWrongWithAFile) {
  const std::string hash(64, 'a');
  const std::pair<std::string, std::string> cases[] = {
      {"[]", "has no list \"tokens\""},
      {R"({"tokens": [7]})", "tokens[0] is no object"},
      {R"({"tokens": [{"name": "a"}]})", "tokens[0]: sha256 is missing"},
      {R"({"tokens": [{"name": "a b", "sha256": ")" + hash + "\"}]}", "tokens[0]: name must be"},
      {R"({"tokens": [{"name": "a", "sha256": "12"}]})", "sha256 must be 64 hex digits"},
      {R"({"tokens": [{"name": "a", "sha256": ")" + hash + R"(", "acess": "full"}]})", "acess"},
      {R"({"tokens": [{"name": "a", "sha256": ")" + hash + R"(", "access": "none"}]})", "access must be"},
      {R"({"tokens": [{"name": "a", "sha256": ")" + hash + R"(", "weight": 0}]})", "weight must be"},
      {R"({"tokens": [{"name": "a", "sha256": ")" + hash + R"(", "max_requests": 1e30}]})",
       "max_requests must be"},
      {R"({"tokens": [{"name": "a", "sha256": ")" + hash + R"(", "expires": "soon"}]})",
       "expires must be a time"},
      {R"({"tokens": [{"name": "a", "sha256": ")" + hash + R"("}, {"name": "a", "sha256": ")" + hash +
           "\"}]}",
       "another one is called a"},
  };
  std::filesystem::create_directories(folder_);
  for (const auto& [text, problem] : cases) {
    std::ofstream(path_) << text;
    EXPECT_THAT(ReadTokenFile(path_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(problem)))
        << text;
  }
}

TEST_F(TokenTest, TellWhoCalls) {
  const std::string alice = Create("alice"), bob = Create("bob");
  const auto access = Access();
  EXPECT_EQ(access->Identify("Bearer " + alice, "h")->name, "alice");
  EXPECT_EQ(access->Identify("bearer  " + bob, "h")->name, "bob");
  for (const std::string& wrong :
       {std::string(), std::string("Bearer"), std::string("Bearer "), alice, "Basic " + alice,
        "Bearer " + alice + "x", "Bearer " + HashToken(alice), "Bearer " + std::string(100'000, 'x')}) {
    EXPECT_EQ(access->Identify(wrong, "h").status().code(), absl::StatusCode::kUnauthenticated);
  }
}

TEST_F(TokenTest, EndWhenTheirTimeIsOver) {
  const std::string token =
      Create("alice", [&](TokenRecord& record) { record.expires = now_ + absl::Seconds(10); });
  const auto access = Access();
  const auto caller = access->Identify("Bearer " + token, "h");
  ASSERT_THAT(caller, IsOk());
  EXPECT_THAT(access->Recheck(*caller), IsOk());
  now_ += absl::Seconds(10);
  EXPECT_EQ(access->Recheck(*caller).code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(access->Identify("Bearer " + token, "h").status().code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(TokenTest, AreReadAgainWhenTheFileChangesButNotWhenItIsBroken) {
  const std::string alice = Create("alice");
  const auto access = Access();
  const auto caller = access->Identify("Bearer " + alice, "h");
  const std::string bob = Create("bob");
  now_ += absl::Seconds(1);
  EXPECT_THAT(access->Identify("Bearer " + bob, "h"), IsOk());
  std::ofstream(path_) << "{";
  now_ += absl::Seconds(1);
  EXPECT_THAT(access->Identify("Bearer " + bob, "h"), IsOk());
  Revoke("alice");
  now_ += absl::Seconds(1);
  EXPECT_FALSE(access->Identify("Bearer " + alice, "h").ok());
  EXPECT_EQ(access->Recheck(*caller).code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(access->Identify("Bearer " + bob, "h"), IsOk());
}

TEST_F(TokenTest, WhoTriesTooOftenIsToldToWaitWhileOthersAreServed) {
  const std::string token = Create("alice");
  const auto access = Access();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(access->Identify("Bearer x", "bad").status().code(), absl::StatusCode::kUnauthenticated);
  }
  const absl::Status refused = access->Identify("Bearer x", "bad").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryDelay(refused), absl::Minutes(1));
  EXPECT_EQ(access->Identify("Bearer x", "other").status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(access->Identify("Bearer " + token, "bad"), IsOk());
  now_ += absl::Seconds(61);
  EXPECT_EQ(access->Identify("Bearer x", "bad").status().code(), absl::StatusCode::kUnauthenticated);
}

TEST(TokenRate, LetsACallerUseAMinutesWorthAndThenWhatComes) {
  TokenRate rate;
  Caller caller;
  caller.name = "alice";
  caller.tokens_per_minute = 600;
  absl::Time now = absl::UnixEpoch();
  EXPECT_THAT(rate.Check(caller, now), IsOk());
  rate.Spend(caller, 599, now);
  EXPECT_THAT(rate.Check(caller, now), IsOk());
  rate.Spend(caller, 101, now);  // 100 too many: ten seconds' worth
  const absl::Status refused = rate.Check(caller, now);
  EXPECT_EQ(ErrorReason(refused), "TOKEN_RATE");
  EXPECT_NEAR(absl::ToDoubleSeconds(*RetryDelay(refused)), 10.1, 0.01);
  EXPECT_FALSE(rate.Check(caller, now + absl::Seconds(9.9)).ok());
  EXPECT_THAT(rate.Check(caller, now + absl::Seconds(10.1)), IsOk());
  // A bucket holds a minute's worth, however long it filled.
  now += absl::Hours(1);
  rate.Spend(caller, 600, now);
  EXPECT_FALSE(rate.Check(caller, now).ok());
  Caller other;
  other.name = "bob";
  rate.Spend(other, 1'000'000, now);
  EXPECT_THAT(rate.Check(other, now), IsOk());
}

RpcServerOptions With(std::shared_ptr<AccessControl> access) {
  RpcServerOptions options;
  options.access = std::move(access);
  return options;
}

grpc::Status CallEmpty(const std::shared_ptr<grpc::Channel>& channel, const std::string& path,
                       const std::string& token) {
  return CallRaw(channel, path, "", token);
}

// Every method there is, reflection and made-up ones among them: none answers without a token.
TEST_F(TokenTest, AreWantedByEveryMethod) {
  const std::string alice = Create("alice");
  const FakeServer server(With(*TokenAccess::Open(path_)));
  const auto channel = server.NewChannel();
  std::vector<std::string> paths = {"/made.up/Method", kReflectionPath, kReflectionPathAlpha};
  const auto* service = v1::ListRunsRequest::descriptor()->file()->FindServiceByName("AnalysisService");
  for (int i = 0; i < service->method_count(); ++i) {
    paths.push_back(absl::StrCat("/", service->full_name(), "/", service->method(i)->name()));
  }
  for (const std::string& path : paths) {
    const auto code = CallEmpty(channel, path, "").error_code();
    EXPECT_TRUE(code == grpc::StatusCode::UNAUTHENTICATED || code == grpc::StatusCode::RESOURCE_EXHAUSTED)
        << path;
  }
  EXPECT_EQ(CallEmpty(channel, "/made.up/Method", alice).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(CallEmpty(channel, "/mechinterp.v1.AnalysisService/ListRuns", alice), IsOk());
  EXPECT_EQ(AskHealth(channel), 2);  // probes need none
}

TEST_F(TokenTest, ThatOnlyReadDoNotWrite) {
  const std::string token = Create("reader", [](TokenRecord& record) { record.caller.read_only = true; });
  const FakeServer server(With(*TokenAccess::Open(path_)));
  const auto channel = server.NewChannel();
  EXPECT_THAT(CallEmpty(channel, "/mechinterp.v1.AnalysisService/ListRuns", token), IsOk());
  const grpc::Status refused = CallEmpty(channel, "/mechinterp.v1.AnalysisService/ImportRun", token);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(ErrorReason(FromGrpcStatus(refused)), "READ_ONLY_TOKEN");
}

TEST_F(TokenTest, RevokedInMidCallEndIt) {
  const std::string alice = Create("alice"), bob = Create("bob");
  FakeServer server(With(*TokenAccess::Open(path_)));
  const auto channel = server.NewChannel();
  grpc::Status of_alice, of_bob;
  const std::string path = "/mechinterp.v1.AnalysisService/DeleteRun";
  std::thread first([&] { of_alice = CallEmpty(channel, path, alice); });
  std::thread second([&] { of_bob = CallEmpty(channel, path, bob); });
  server.service().WaitForDeletes(2);
  Revoke("alice");
  first.join();
  EXPECT_EQ(of_alice.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  server.service().must_end = true;
  second.join();
  EXPECT_EQ(of_bob.error_message(), "told to end");
}

}  // namespace
}  // namespace mechinterp
