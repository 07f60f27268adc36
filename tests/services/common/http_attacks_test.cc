// Clients that are slow, endless or many: others are served, and the process ends when it is told to.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/http_server.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class Socket {
 public:
  explicit Socket(int port) : descriptor_(socket(AF_INET, SOCK_STREAM, 0)) {
    const int bytes = 16 * 1024;  // what is sent and not read is this process's memory too
    setsockopt(descriptor_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<in_port_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const timeval patience{5, 0};
    setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() { close(descriptor_); }

  bool Send(const std::string& text) {
    return send(descriptor_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  }
  // All until the end.
  std::string Read() {
    std::string text;
    char bytes[4096];
    for (ssize_t count; (count = recv(descriptor_, bytes, sizeof(bytes), 0)) > 0;) {
      text.append(bytes, static_cast<size_t>(count));
    }
    return text;
  }

 private:
  const int descriptor_;
};

class HttpAttacks : public ::testing::Test {
 protected:
  // Both ends are this process's.
  HttpAttacks() {
    signal(SIGPIPE, SIG_IGN);
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 10'000);
    setrlimit(RLIMIT_NOFILE, &limit);
    Start({});
  }

  void Start(HttpServerOptions options) {
    options.forms = {"/form"};
    auto server = HttpServer::Start(
        "127.0.0.1:0",
        [](const HttpRequest& request) {
          static const auto long_body = std::make_shared<const std::string>(10'000'000, 'x');
          HttpResponse response = TextResponse(200, "here");
          if (request.path == "/long") response.body = long_body;
          return response;
        },
        std::move(options));
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
  }

  std::string Ask(const std::string& request) {
    Socket socket(server_->port());
    socket.Send(request);
    return socket.Read();
  }
  void ExpectAnswerWithin(absl::Duration patience) {
    const absl::Time begin = absl::Now();
    EXPECT_THAT(Ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), StartsWith("HTTP/1.1 200"));
    EXPECT_LT(absl::Now() - begin, patience);
  }

  std::vector<std::unique_ptr<Socket>> Open(int count, const std::string& text) {
    std::vector<std::unique_ptr<Socket>> sockets;
    for (int i = 0; i < count; ++i) {
      sockets.push_back(std::make_unique<Socket>(server_->port()));
      sockets.back()->Send(text);
    }
    return sockets;
  }

  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpAttacks, HundredsOfTricklersHoldNobodyUp) {
  for (const int threads : {1, 4}) {
    HttpServerOptions options;
    options.threads = threads;
    Start(options);
    const auto tricklers = Open(600, "GET / HTTP/1.1\r\nX: ");
    std::atomic<bool> done = false;
    std::thread trickle([&] {
      while (!done) {
        for (const auto& socket : tricklers) socket->Send("x");
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    });
    for (int i = 0; i < 20; ++i) ExpectAnswerWithin(absl::Seconds(2));
    done = true;
    trickle.join();
  }
}

TEST_F(HttpAttacks, ClientsThatDoNotReadHoldNobodyUp) {
  const auto sockets = Open(600, "GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ExpectAnswerWithin(absl::Seconds(2));
}

TEST_F(HttpAttacks, ARequestThatTakesTooLongIsCut) {
  HttpServerOptions options;
  options.request_time = absl::Milliseconds(500);
  Start(options);
  Socket trickler(server_->port());
  Socket form(server_->port());
  form.Send("POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
  const absl::Time begin = absl::Now();
  while (absl::Now() - begin < absl::Seconds(4) && trickler.Send("x") && form.Send("x")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_LT(absl::Now() - begin, absl::Seconds(2));
}

size_t MemoryInUse() {
  std::ifstream file("/proc/self/statm");
  size_t pages = 0;
  file >> pages >> pages;
  return pages * 4096;
}

TEST_F(HttpAttacks, AnEndlessHeadIsRefused) {
  for (const std::string& piece : {std::string("X: 1\r\n"), std::string(1000, 'x')}) {
    const size_t before = MemoryInUse();
    Socket socket(server_->port());
    socket.Send("GET / HTTP/1.1\r\n");
    size_t sent = 0;
    while (sent < 100'000'000 && socket.Send(piece)) sent += piece.size();
    EXPECT_LT(sent, 10'000'000u);
    EXPECT_LT(MemoryInUse(), before + 10'000'000);
  }
  ExpectAnswerWithin(absl::Seconds(1));
}

TEST_F(HttpAttacks, LongBodiesAreRefusedUnread) {
  const std::string host = " HTTP/1.1\r\nHost: localhost\r\n";
  const std::string huge = "Content-Length: 5000000000\r\n\r\n";
  EXPECT_THAT(Ask("POST /" + host + huge + "begin"), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Ask("PUT /" + host + huge + "begin"), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Ask("POST /form" + host + huge + "begin"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(Ask("POST /" + host + "Content-Encoding: gzip\r\n" + huge), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Ask("POST /" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n"),
              StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Ask("POST /form" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n"),
              StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(Ask("POST /" + host + "Expect: 100-continue\r\n" + huge), StartsWith("HTTP/1.1 405"));
  EXPECT_EQ(Ask("GET /" + host + huge + "begin"), "");
  EXPECT_EQ(Ask("PATCH /" + host + huge + "begin"), "");
}

TEST_F(HttpAttacks, OneRequestIsAnsweredOnAConnection) {
  const std::string request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const std::string answer = Ask(request + request);
  EXPECT_THAT(answer, HasSubstr("here"));
  EXPECT_EQ(answer.find("HTTP/1.1 200"), answer.rfind("HTTP/1.1 200"));
}

TEST_F(HttpAttacks, OldClientsNeedNoHost) {
  EXPECT_THAT(Ask("GET / HTTP/1.0\r\n\r\n"), HasSubstr(" 200 "));
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), HasSubstr("does not answer to that name"));
}

TEST_F(HttpAttacks, TheServerEndsWhoeverIsConnected) {
  const auto silent = Open(40, "");
  const auto half = Open(40, "GET / HTTP/1.1\r\nHost: loc");
  const auto unread = Open(40, "GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const absl::Time begin = absl::Now();
  server_.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(1));
}

TEST_F(HttpAttacks, ASlowAnswerHoldsOneThread) {
  HttpServerOptions options;
  options.threads = 4;
  std::atomic<bool> release = false;
  auto server = HttpServer::Start(
      "127.0.0.1:0",
      [&](const HttpRequest& request) {
        while (request.path == "/slow" && !release) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return TextResponse(200, "here");
      },
      options);
  ASSERT_THAT(server, IsOk());
  server_ = *std::move(server);
  const auto slow = Open(1, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  for (int i = 0; i < 20; ++i) ExpectAnswerWithin(absl::Seconds(1));
  release = true;
  EXPECT_THAT(slow[0]->Read(), HasSubstr("here"));
  server_.reset();
}

}  // namespace
}  // namespace mechinterp
