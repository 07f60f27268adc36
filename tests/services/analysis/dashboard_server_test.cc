#include "services/analysis/dashboard_server.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "httplib.h"
#include "tests/services/analysis/studies.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class DashboardServerTest : public ::testing::Test {
 protected:
  DashboardServerTest() {
    auto store = RunStore::Open(folder_.File("runs.sqlite"));
    EXPECT_THAT(store, IsOk());
    store_ = *std::move(store);
    auto server = StartDashboardServer("127.0.0.1:0", store_.get());
    EXPECT_THAT(server, IsOk());
    server_ = *std::move(server);
  }

  httplib::Result Get(const std::string& path) {
    httplib::Client client("127.0.0.1", server_->port());
    httplib::Result result = client.Get(path);
    EXPECT_TRUE(result) << path;
    return result;
  }

  ScratchFolder folder_;
  std::unique_ptr<RunStore> store_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(DashboardServerTest, ServesDashboardsAndTheirList) {
  ASSERT_THAT(store_->Import("old", SmallStudy()), IsOk());
  ASSERT_THAT(store_->Import("new", SmallStudy()), IsOk());
  const auto page = Get("/runs/new");
  EXPECT_EQ(page->status, 200);
  EXPECT_THAT(page->get_header_value("Content-Type"), HasSubstr("text/html"));
  EXPECT_THAT(page->body, HasSubstr("id=\"patching\""));
  EXPECT_THAT(Get("/runs")->body, AllOf(HasSubstr("href=\"/runs/old\""), HasSubstr("href=\"/runs/new\"")));
  EXPECT_EQ(Get("/")->status, 302);
  EXPECT_EQ(Get("/")->get_header_value("Location"), "/runs/new");
  EXPECT_EQ(Get("/healthz")->body, "ok\n");
}

TEST_F(DashboardServerTest, ServesEachExperimentsResultsAsJson) {
  v1::Study study = SmallStudy();
  study.mutable_compare()->mutable_other_model()->set_name("quantized");
  ASSERT_THAT(store_->Import("run", study), IsOk());
  EXPECT_THAT(Get("/runs")->body,
              AllOf(HasSubstr("href=\"/runs/run/patching.json\""),
                    HasSubstr("href=\"/runs/run/compare.json\""), Not(HasSubstr("ablation.json"))));
  const auto results = Get("/runs/run/compare.json");
  EXPECT_EQ(results->get_header_value("Content-Type"), "application/json");
  EXPECT_THAT(results->body, HasSubstr("\"quantized\""));
  EXPECT_EQ(Get("/runs/run/ablation.json")->status, 404);
  EXPECT_EQ(Get("/runs/run/nothing.json")->status, 404);
  EXPECT_EQ(Get("/runs/none/compare.json")->status, 404);
}

TEST_F(DashboardServerTest, SendsThePageCompressedToThoseWhoTakeGzip) {
  ASSERT_THAT(store_->Import("run", SmallStudy()), IsOk());
  httplib::Client client("127.0.0.1", server_->port());
  client.set_decompress(false);
  const auto get = [&](const std::string& encodings) {
    return client.Get("/runs/run", httplib::Headers{{"Accept-Encoding", encodings}});
  };
  const auto plain = get("br");
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->has_header("Content-Encoding"));
  const auto compressed = get("br, gzip");
  ASSERT_TRUE(compressed);
  EXPECT_EQ(compressed->get_header_value("Content-Encoding"), "gzip");
  EXPECT_EQ(compressed->get_header_value("Vary"), "Accept-Encoding");
  EXPECT_LT(compressed->body.size(), plain->body.size() / 2);
  EXPECT_EQ(compressed->body.substr(0, 2), "\x1f\x8b");
  client.set_decompress(true);
  EXPECT_EQ(get("gzip")->body, plain->body);
}

TEST_F(DashboardServerTest, AnswersManyRangesWithOnePage) {
  ASSERT_THAT(store_->Import("run", SmallStudy()), IsOk());
  std::string ranges = "bytes=0-";
  while (ranges.size() < 900) ranges += ",0-";
  httplib::Client client("127.0.0.1", server_->port());
  const auto page = client.Get("/runs/run", httplib::Headers{{"Range", ranges}});
  ASSERT_TRUE(page);
  EXPECT_EQ(page->status, 200);
  EXPECT_EQ(page->body.size(), Get("/runs/run")->body.size());
}

TEST_F(DashboardServerTest, ListsManyRunsInPages) {
  for (int i = 0; i < 101; ++i) ASSERT_THAT(store_->Import(absl::StrCat("run-", i), v1::Study()), IsOk());
  const std::string first = Get("/runs")->body;
  EXPECT_THAT(first, AllOf(HasSubstr("/runs/run-100\""), HasSubstr("/runs/run-1\""),
                           Not(HasSubstr("/runs/run-0\""))));
  const std::string link = "href=\"/runs?";
  const size_t begin = first.find(link);
  ASSERT_NE(begin, std::string::npos);
  const size_t path = begin + link.size() - std::string("/runs?").size();
  const std::string second = Get(first.substr(path, first.find('"', path) - path))->body;
  EXPECT_THAT(second,
              AllOf(HasSubstr("/runs/run-0\""), Not(HasSubstr("/runs/run-1\"")), Not(HasSubstr(link))));
  EXPECT_EQ(Get("/runs?page_token=x")->status, 400);
}

TEST_F(DashboardServerTest, SaysWhatToDoWithoutRuns) {
  EXPECT_EQ(Get("/")->get_header_value("Location"), "/runs");
  EXPECT_THAT(Get("/runs")->body, HasSubstr("abstract baseline"));
}

TEST_F(DashboardServerTest, AnswersUnknownRunsAndPathsWith404) {
  EXPECT_EQ(Get("/runs/none")->status, 404);
  EXPECT_THAT(Get("/runs/none")->body, HasSubstr("there is no run &quot;none&quot;"));
  EXPECT_EQ(Get("/etc/passwd")->status, 404);
  EXPECT_EQ(Get("/runs/..%2f..%2fetc")->status, 404);
}

TEST_F(DashboardServerTest, EscapesNamesInTheList) {
  v1::Study study = SmallStudy();
  study.mutable_baseline()->mutable_provenance()->mutable_model()->set_name("<script>alert(1)</script>");
  ASSERT_THAT(store_->Import("run", study), IsOk());
  EXPECT_THAT(Get("/runs")->body, AllOf(HasSubstr("&lt;script&gt;"), Not(HasSubstr("<script>alert"))));
}

TEST_F(DashboardServerTest, NamesTheAddressWhenThePortIsTaken) {
  const std::string taken = absl::StrCat("127.0.0.1:", server_->port());
  const auto second = StartDashboardServer(taken, store_.get());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), AllOf(HasSubstr(taken), HasSubstr("in use")));
  EXPECT_EQ(StartDashboardServer("8080", store_.get()).status().code(), absl::StatusCode::kInvalidArgument);
}

class DashboardWithTokens : public DashboardServerTest {
 protected:
  DashboardWithTokens() {
    DashboardOptions options;
    options.check = [](const std::string& token, const std::string& host) -> absl::Status {
      EXPECT_EQ(host, "127.0.0.1");
      if (token == "secret+1") return absl::OkStatus();
      if (token == "tired") return absl::ResourceExhaustedError("too many calls <without> a token");
      return absl::UnauthenticatedError("wrong");
    };
    auto server = StartDashboardServer("127.0.0.1:0", store_.get(), options);
    EXPECT_THAT(server, IsOk());
    server_ = *std::move(server);
  }

  httplib::Result LogIn(const std::string& body, httplib::Headers headers = {}) {
    httplib::Client client("127.0.0.1", server_->port());
    return client.Post("/login", headers, body, "application/x-www-form-urlencoded");
  }
  int StatusWithCookie(const std::string& path, const std::string& cookie) {
    httplib::Client client("127.0.0.1", server_->port());
    return client.Get(path, httplib::Headers{{"Cookie", cookie}})->status;
  }
};

TEST_F(DashboardWithTokens, AsksForOne) {
  ASSERT_THAT(store_->Import("run", SmallStudy()), IsOk());
  for (const char* path : {"/", "/runs", "/runs/run", "/runs/run/patching.json", "/login", "/none"}) {
    const auto response = Get(path);
    EXPECT_EQ(response->status, 401) << path;
    EXPECT_THAT(response->body, AllOf(HasSubstr("name=\"token\""), Not(HasSubstr("valid")))) << path;
  }
  EXPECT_EQ(Get("/healthz")->status, 200);
}

TEST_F(DashboardWithTokens, KeepsItInACookie) {
  const auto response = LogIn("x=y&token=secret%2B1");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 303);
  EXPECT_EQ(response->get_header_value("Location"), "/");
  EXPECT_EQ(response->get_header_value("Set-Cookie"),
            "abstract_token=secret+1; HttpOnly; SameSite=Strict; Path=/");
  EXPECT_EQ(StatusWithCookie("/runs", "a=b; abstract_token=secret+1"), 200);
  EXPECT_EQ(StatusWithCookie("/runs", "abstract_token=other"), 401);
  EXPECT_EQ(StatusWithCookie("/runs", "other_abstract_token=secret+1"), 401);
}

TEST_F(DashboardWithTokens, RefusesWrongOnesAndOtherSites) {
  const auto wrong = LogIn("token=wrong");
  EXPECT_EQ(wrong->status, 401);
  EXPECT_FALSE(wrong->has_header("Set-Cookie"));
  EXPECT_THAT(wrong->body, HasSubstr("no valid token"));
  EXPECT_EQ(LogIn("")->status, 401);
  const auto tired = LogIn("token=tired");
  EXPECT_EQ(tired->status, 429);
  EXPECT_THAT(tired->body, HasSubstr("&lt;without&gt;"));
  EXPECT_EQ(LogIn("token=secret%2B1", {{"Origin", "http://evil.example"}})->status, 403);
  EXPECT_EQ(LogIn("token=secret%2B1&x=" + std::string(5000, 'x'))->status, 413);
}

TEST_F(DashboardServerTest, TakesNoTokenWhereNoneIsNeeded) {
  httplib::Client client("127.0.0.1", server_->port());
  EXPECT_EQ(client.Post("/login", "token=x", "application/x-www-form-urlencoded")->status, 405);
  EXPECT_EQ(Get("/login")->status, 404);
}

TEST_F(DashboardServerTest, KnowsPathsByTheirLetters) {
  ASSERT_THAT(store_->Import("run", SmallStudy()), IsOk());
  EXPECT_EQ(Get("/runs/%72un")->status, 200);
  for (const std::string& path :
       {std::string("/runs/"), std::string("/runs/run/"), std::string("/runs/run/.json"),
        std::string("//runs/run"), std::string("/runs/run/a/b.json"), std::string("/runs/run%00"),
        "/runs/" + std::string(65, 'x')}) {
    const auto response = Get(path);
    EXPECT_EQ(response->status, 404) << path;
    EXPECT_THAT(response->body, HasSubstr("There is no such page")) << path;
  }
}

}  // namespace
}  // namespace mechinterp
