// What servers of HTTP bear: every one is an HttpServer.

#include "services/common/http_server.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "httplib.h"
#include "services/common/metrics_server.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    HttpServerOptions options;
    options.forms = {"/form"};
    auto server = HttpServer::Start(
        "127.0.0.1:0", [this](const HttpRequest& request) { return Answer(request); }, options);
    EXPECT_THAT(server, IsOk());
    server_ = *std::move(server);
  }

  HttpResponse Answer(const HttpRequest& request) const {
    if (request.path == "/empty") return HttpResponse{};
    if (request.path == "/form") return TextResponse(200, request.method + " " + request.body);
    if (request.path == "/echo") {
      return TextResponse(200, absl::StrCat(request.query("a"), "|", request.query("none"), "|",
                                            request.header("x-word"), "|", request.peer));
    }
    if (request.path == "/throws") throw std::runtime_error("out of something");
    if (request.path != "/") return TextResponse(404, request.path);
    HttpResponse response;
    response.body = body_;
    return response;
  }

  httplib::Client Client() const { return httplib::Client("127.0.0.1", server_->port()); }

  const std::shared_ptr<const std::string> body_ = std::make_shared<std::string>(1'000'000, 'x');
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, SendsABodyOnceWhateverRangesAreAskedFor) {
  std::string many = "bytes=0-";
  while (many.size() < 900) absl::StrAppend(&many, ",0-");
  std::string longest = "bytes=0-";
  while (longest.size() < 8000) absl::StrAppend(&longest, ",0-");
  for (const std::string& ranges : {std::string("bytes=0-9"), std::string("bytes=0-,0-"), many, longest,
                                    std::string("bytes=999999999999-"), std::string("bytes=-5")}) {
    const auto response = Client().Get("/", httplib::Headers{{"Range", ranges}});
    ASSERT_TRUE(response) << ranges.substr(0, 40);
    EXPECT_EQ(response->status, 200) << ranges.substr(0, 40);
    EXPECT_EQ(response->body.size(), body_->size()) << ranges.substr(0, 40);
    EXPECT_EQ(response->get_header_value("Accept-Ranges"), "none");
  }
}

TEST_F(HttpServerTest, SendsBodiesAsTheyAre) {
  auto client = Client();
  client.set_decompress(false);
  const auto response = client.Get("/", httplib::Headers{{"Accept-Encoding", "br, gzip"}});
  ASSERT_TRUE(response);
  EXPECT_FALSE(response->has_header("Content-Encoding"));
  EXPECT_EQ(response->body, *body_);
  EXPECT_EQ(response->get_header_value("Content-Length"), "1000000");
  EXPECT_EQ(client.Get("/empty")->status, 200);
  EXPECT_EQ(client.Head("/")->get_header_value("Content-Length"), "1000000");
}

TEST_F(HttpServerTest, ReadsNoBodies) {
  for (const char* method : {"POST", "PUT", "PATCH", "DELETE", "OPTIONS"}) {
    httplib::Request request;
    request.method = method;
    request.path = "/";
    request.body = "x";
    const auto response = Client().send(request);
    ASSERT_TRUE(response) << method;
    EXPECT_EQ(response->status, 405) << method;
    EXPECT_EQ(response->get_header_value("Allow"), "GET, HEAD") << method;
  }
}

TEST_F(HttpServerTest, HandsOnWhatTheRequestSays) {
  auto client = Client();
  EXPECT_EQ(client.Get("/echo?a=1%2B%202&b", httplib::Headers{{"X-Word", "word"}})->body,
            "1+ 2||word|127.0.0.1");
  EXPECT_EQ(client.Get("/%65cho?none")->body, "|||127.0.0.1");
  EXPECT_EQ(client.Get("/e%00cho")->body, "/e%00cho");
  EXPECT_EQ(client.Get("/runs/..%2f..")->body, "/runs/../..");
  const auto response = client.Get("/");
  EXPECT_EQ(response->get_header_value("Cache-Control"), "no-store");
  EXPECT_EQ(response->get_header_value("X-Content-Type-Options"), "nosniff");
  EXPECT_FALSE(client.Get("/throws"));
  EXPECT_EQ(client.Get("/empty")->status, 200);
}

TEST_F(HttpServerTest, ReadsFormsOfAFewKilobytes) {
  auto client = Client();
  const std::string type = "application/x-www-form-urlencoded";
  EXPECT_EQ(client.Post("/form", "a=b", type)->body, "POST a=b");
  EXPECT_EQ(client.Post("/form", std::string(kMaxFormBytes, 'x'), type)->status, 200);
  EXPECT_EQ(client.Post("/form", std::string(kMaxFormBytes + 1, 'x'), type)->status, 413);
  EXPECT_EQ(client.Put("/form", "x", type)->get_header_value("Allow"), "GET, HEAD, POST");
  EXPECT_EQ(client.Get("/form")->body, "GET ");
}

TEST_F(HttpServerTest, EndsTheConnectionWithTheAnswer) {
  EXPECT_EQ(Client().Get("/")->get_header_value("Connection"), "close");
}

// What a server on `address` answers to a GET with these headers.
int StatusFor(const std::string& address, const httplib::Headers& headers,
              std::vector<std::string> allowed_hosts = {}) {
  HttpServerOptions options;
  options.allowed_hosts = std::move(allowed_hosts);
  const auto server = HttpServer::Start(
      address, [](const HttpRequest&) { return TextResponse(200, "here"); }, options);
  EXPECT_THAT(server, IsOk());
  httplib::Client client("127.0.0.1", (*server)->port());
  const auto response = client.Get("/", headers);
  return response ? response->status : -1;
}

TEST(HttpNames, OnLoopbackAreLoopbacksOwn) {
  for (const char* host : {"localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]", "[::1]:8080"}) {
    EXPECT_EQ(StatusFor("127.0.0.1:0", {{"Host", host}}), 200) << host;
  }
  for (const char* host : {"evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.nip.io",
                           "localhost.", "[::2]", "10.0.0.1"}) {
    EXPECT_EQ(StatusFor("127.0.0.1:0", {{"Host", host}}), 421) << host;
  }
}

TEST(HttpNames, ElsewhereAreAnyOrThoseThatWereGiven) {
  EXPECT_EQ(StatusFor("0.0.0.0:0", {{"Host", "lab.example:8080"}}), 200);
  EXPECT_EQ(StatusFor("0.0.0.0:0", {{"Host", "evil.example"}}, {"lab.example"}), 421);
  EXPECT_EQ(StatusFor("127.0.0.1:0", {{"Host", "Lab.Example"}}, {"lab.example"}), 200);
}

TEST(HttpNames, OfOtherOriginsAreRefused) {
  const auto status = [](const char* origin) {
    return StatusFor("127.0.0.1:0", {{"Host", "localhost:80"}, {"Origin", origin}});
  };
  EXPECT_EQ(status("http://localhost:80"), 200);
  for (const char* origin : {"http://evil.example", "http://localhost", "http://localhost:81", "null", ""}) {
    EXPECT_EQ(status(origin), 403) << origin;
  }
}

TEST(HttpServerAddress, MayBeANameOrIpv6) {
  const auto answer = [](const HttpRequest& request) { return TextResponse(200, request.peer); };
  const auto named = HttpServer::Start("localhost:0", answer);
  ASSERT_THAT(named, IsOk());
  EXPECT_TRUE(httplib::Client("localhost", (*named)->port()).Get("/"));
  const auto six = HttpServer::Start("[::1]:0", answer);
  if (!six.ok()) GTEST_SKIP() << six.status();
  EXPECT_EQ(httplib::Client("::1", (*six)->port()).Get("/", {{"Host", "[::1]:80"}})->body, "::1");
}

TEST(HttpServerAddress, ThatIsTakenIsNamed) {
  const auto answer = [](const HttpRequest&) { return HttpResponse{}; };
  const auto first = HttpServer::Start("127.0.0.1:0", answer);
  ASSERT_THAT(first, IsOk());
  const std::string taken = absl::StrCat("127.0.0.1:", (*first)->port());
  EXPECT_THAT(HttpServer::Start(taken, answer),
              StatusIs(absl::StatusCode::kUnavailable,
                       absl::StrCat("cannot listen on ", taken, ": Address already in use")));
}

TEST(MetricsServer, BearsManyRangesToo) {
  const auto server = StartMetricsServer("127.0.0.1:0", std::make_shared<prometheus::Registry>());
  ASSERT_THAT(server, IsOk());
  httplib::Client client("127.0.0.1", (*server)->port());
  const auto response = client.Get("/metrics", httplib::Headers{{"Range", "bytes=0-,0-,0-"}});
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(client.Post("/metrics", "x", "text/plain")->status, 405);
}

}  // namespace
}  // namespace mechinterp
