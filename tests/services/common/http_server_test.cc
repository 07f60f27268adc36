// What servers of HTTP bear: every one is an HttpServer.

#include "services/common/http_server.h"

#include <memory>
#include <string>

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
    auto server = HttpServer::Start("127.0.0.1:0", [this](httplib::Server& routes) {
      routes.Get("/", [this](const httplib::Request&, httplib::Response& response) {
        SetBody(response, body_, "text/plain");
      });
      routes.Get("/empty", [](const httplib::Request&, httplib::Response& response) {
        SetBody(response, std::make_shared<std::string>(), "text/plain");
      });
      routes.Post("/", [](const httplib::Request&, httplib::Response& response) {
        response.set_content("a handler was called", "text/plain");
      });
    });
    EXPECT_THAT(server, IsOk());
    server_ = *std::move(server);
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

TEST_F(HttpServerTest, EndsTheConnectionWithTheAnswer) {
  EXPECT_EQ(Client().Get("/")->get_header_value("Connection"), "close");
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
