// abstract-analysis-server as its users meet it: a process with options, exit
// codes and signals.

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/analysis_service.grpc.pb.h"
#include "services/common/text_file.h"
#include "tests/services/analysis/studies.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class AnalysisServerProgram : public ::testing::Test {
 protected:
  // Starts the program with its output in a file.
  pid_t Start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), ABSTRACT_ANALYSIS_SERVER);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const std::string output = folder_.File("output");
    std::filesystem::remove(output);  // or an earlier program's words are taken for this one's
    const pid_t child = fork();
    if (child == 0) {
      const int file = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(file, STDOUT_FILENO);
      dup2(file, STDERR_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
    return child;
  }

  static int Wait(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  int Run(const std::vector<std::string>& arguments) { return Wait(Start(arguments)); }

  std::string Output() {
    const auto text = ReadTextFile(folder_.File("output"));
    return text.ok() ? *text : "";
  }

  // Options of a server on free ports with a database of its own.
  std::vector<std::string> Server(const std::map<std::string, std::string>& changes = {}) {
    std::map<std::string, std::string> options = {{"--listen-address", "127.0.0.1:0"},
                                                  {"--http-address", "127.0.0.1:0"},
                                                  {"--metrics-address", "127.0.0.1:0"},
                                                  {"--database", folder_.File("db.sqlite")}};
    for (const auto& [name, value] : changes) options[name] = value;
    std::vector<std::string> arguments;
    for (const auto& [name, value] : options) arguments.insert(arguments.end(), {name, value});
    return arguments;
  }

  bool WaitForOutput(const std::string& text) {
    for (int i = 0; i < 1000; ++i) {
      if (absl::StrContains(Output(), text)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }

  // "127.0.0.1:PORT" of the port that the program logged after `marker`.
  std::string AddressAfter(const std::string& marker) {
    const std::string log = Output();
    return "127.0.0.1:" + std::to_string(std::stoi(log.substr(log.find(marker) + marker.size())));
  }

  ScratchFolder folder_;
};

TEST_F(AnalysisServerProgram, ExplainsItself) {
  EXPECT_EQ(Run({"--help"}), 0);
  EXPECT_THAT(Output(), AllOf(HasSubstr("--listen-address"), HasSubstr("ABSTRACT_ANALYSIS_HTTP_ADDRESS"),
                              HasSubstr("outputs/analysis.sqlite")));
  EXPECT_EQ(Run({"--version"}), 0);
  EXPECT_NE(Run({"--colour", "blue"}), 0);
  EXPECT_THAT(Output(), HasSubstr("--colour"));
}

TEST_F(AnalysisServerProgram, RendersOnce) {
  const std::string page = folder_.File("figures/dashboard.html");
  EXPECT_EQ(Run({"--render-once", "--results", ResultsFolder(), "--output", page}), 0) << Output();
  const auto html = ReadTextFile(page);
  ASSERT_THAT(html, IsOk());
  EXPECT_THAT(*html, HasSubstr("synthetic-8-layer"));
  // Nothing but the page is left beside it.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.File("figures")), {}), 1);
}

TEST_F(AnalysisServerProgram, NamesWhatItCannotReadOrWrite) {
  EXPECT_EQ(Run({"--render-once", "--results", folder_.File("nowhere")}), 1);
  EXPECT_THAT(Output(), HasSubstr(folder_.File("nowhere")));
  ASSERT_THAT(WriteTextFileAtomically(folder_.File("file"), ""), IsOk());
  EXPECT_EQ(Run({"--render-once", "--results", ResultsFolder(), "--output", folder_.File("file/page.html")}),
            1);
  EXPECT_THAT(Output(), HasSubstr(folder_.File("file")));
  EXPECT_EQ(Run(Server({{"--database", folder_.File("file/db")}})), 1);
  EXPECT_THAT(Output(), HasSubstr(folder_.File("file/db")));
  EXPECT_EQ(Run(Server({{"--log-level", "loud"}})), 1);
  EXPECT_THAT(Output(), HasSubstr("\"loud\""));
}

TEST_F(AnalysisServerProgram, EndsCleanlyOnSigterm) {
  for (const int signal : {SIGTERM, SIGINT}) {
    const pid_t child = Start(Server({{"--results", ResultsFolder()}}));
    ASSERT_TRUE(WaitForOutput("ready")) << Output();
    kill(child, signal);
    EXPECT_EQ(Wait(child), 0);
    EXPECT_THAT(Output(), HasSubstr("run \"latest\""));
  }
}

TEST_F(AnalysisServerProgram, NamesATakenAddress) {
  const pid_t child = Start(Server());
  ASSERT_TRUE(WaitForOutput("ready")) << Output();
  const std::string address = AddressAfter("gRPC on port ");
  EXPECT_EQ(Run(Server({{"--listen-address", address}})), 1);
  EXPECT_THAT(Output(), AllOf(HasSubstr(address), HasSubstr("in use")));
  kill(child, SIGTERM);
  EXPECT_EQ(Wait(child), 0);
}

TEST_F(AnalysisServerProgram, TellsWhereItServesPages) {
  for (const std::string http_address : {"127.0.0.1:0", ""}) {
    const pid_t child = Start(Server({{"--http-address", http_address}}));
    ASSERT_TRUE(WaitForOutput("ready")) << Output();
    const auto stub = v1::AnalysisService::NewStub(
        grpc::CreateChannel(AddressAfter("gRPC on port "), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::ImportRunRequest request;
    *request.mutable_study() = SmallStudy();
    v1::ImportRunResponse response;
    EXPECT_THAT(stub->ImportRun(&context, request, &response), IsOk());
    EXPECT_EQ(response.http_address(), http_address.empty() ? "" : AddressAfter("dashboard on port "));
    kill(child, SIGTERM);
    EXPECT_EQ(Wait(child), 0);
  }
}

}  // namespace
}  // namespace mechinterp
