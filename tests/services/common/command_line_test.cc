#include "services/common/command_line.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/logging.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A program with options of the usual kinds and a subcommand.
struct Program {
  Program() {
    app.add_option("--listen-address", listen_address)->capture_default_str();
    app.add_option("--threads", threads);
    app.add_option("--layers", layers);
    app.add_flag("--verbose", verbose);
    CLI::App* sub = app.add_subcommand("baseline");
    sub->add_option("--max-new-tokens", max_new_tokens);
    app.require_subcommand(0, 1);
    AddEnvironmentAndConfig(app, "TEST", "test");
  }

  CLI::App app{"program"};
  std::string listen_address = "default";
  int threads = 1;
  std::vector<int> layers;
  bool verbose = false;
  int max_new_tokens = 64;
};

class CommandLine : public ::testing::Test {
 protected:
  void SetUp() override { unsetenv("ABSTRACT_TEST_CONFIG"); }
  void TearDown() override {
    for (const std::string& name : set_) unsetenv(name.c_str());
    std::filesystem::remove(file_);
  }

  void SetEnvironment(const std::string& name, const std::string& value) {
    setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }

  std::string WriteConfig(const std::string& text) {
    std::ofstream(file_) << text;
    return file_;
  }

  // Arguments in the order typed; CLI11 takes them reversed.
  static void Parse(Program& program, std::vector<std::string> arguments) {
    program.app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  }

  // The message of the ParseError that parsing throws.
  static std::string ErrorOf(const std::vector<std::string>& arguments) {
    Program program;
    try {
      Parse(program, arguments);
    } catch (const CLI::ParseError& error) {
      return error.what();
    }
    return "no error";
  }

 private:
  std::vector<std::string> set_;
  const std::string file_ = ::testing::TempDir() + "/" + std::to_string(getpid()) + "-command_line_test.yaml";
};

TEST_F(CommandLine, KeepsDefaults) {
  Program program;
  Parse(program, {});
  EXPECT_EQ(program.listen_address, "default");
}

TEST_F(CommandLine, BeatsEnvironmentWhichBeatsFileWhichBeatsDefault) {
  const std::string file = WriteConfig("other: {x: 1}\ntest:\n  listen_address: file\n  threads: 2\n");
  {
    Program program;
    Parse(program, {"--config", file});
    EXPECT_EQ(program.listen_address, "file");
    EXPECT_EQ(program.threads, 2);
  }
  SetEnvironment("ABSTRACT_TEST_LISTEN_ADDRESS", "environment");
  {
    Program program;
    Parse(program, {"--config", file});
    EXPECT_EQ(program.listen_address, "environment");
    EXPECT_EQ(program.threads, 2);
  }
  {
    Program program;
    Parse(program, {"--listen-address", "flag", "--config", file});
    EXPECT_EQ(program.listen_address, "flag");
  }
}

TEST_F(CommandLine, ReadsListsFlagsDashesAndSubcommandsFromYaml) {
  const std::string file = WriteConfig(
      "test:\n  layers: [3, 5]\n  verbose: true\n  listen-address: dashed\n  baseline:\n    max_new_tokens: "
      "7\n");
  Program program;
  Parse(program, {"--config", file, "baseline"});
  EXPECT_THAT(program.layers, ElementsAre(3, 5));
  EXPECT_TRUE(program.verbose);
  EXPECT_EQ(program.listen_address, "dashed");
  EXPECT_EQ(program.max_new_tokens, 7);
}

TEST_F(CommandLine, GivesSubcommandsEnvironmentTwinsToo) {
  SetEnvironment("ABSTRACT_TEST_MAX_NEW_TOKENS", "9");
  Program program;
  Parse(program, {"baseline"});
  EXPECT_EQ(program.max_new_tokens, 9);
}

TEST_F(CommandLine, ReadsTheConfigPathFromTheEnvironment) {
  SetEnvironment("ABSTRACT_TEST_CONFIG", WriteConfig("test: {threads: 5}"));
  Program program;
  Parse(program, {});
  EXPECT_EQ(program.threads, 5);
  SetEnvironment("ABSTRACT_TEST_CONFIG", "/nonexistent/config.yaml");
  EXPECT_THAT(ErrorOf({}), HasSubstr("/nonexistent/config.yaml"));
}

TEST_F(CommandLine, NamesUnknownKeys) {
  const std::string file = WriteConfig("test:\n  threads: 2\n  colour: blue\n");
  EXPECT_THAT(ErrorOf({"--config", file}), AllOf(HasSubstr(file + ":3"), HasSubstr("\"test.colour\"")));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {baseline: {top_k: 3}}")}),
              HasSubstr("\"test.baseline.top_k\""));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {config: other.yaml}")}), HasSubstr("\"test.config\""));
}

TEST_F(CommandLine, ExplainsFilesItCannotRead) {
  EXPECT_THAT(ErrorOf({"--config", "/nonexistent/config.yaml"}), HasSubstr("/nonexistent/config.yaml"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: [unclosed\n")}), HasSubstr("command_line_test.yaml"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("tset: {threads: 2}\n")}), HasSubstr("no section \"test\""));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: 3\n")}), HasSubstr("expected a map"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {threads: {a: 1}}\n")}), HasSubstr("\"test.threads\""));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {threads: many}\n")}), HasSubstr("threads"));
}

TEST_F(CommandLine, AnswersHelpEvenWithABrokenFile) {
  Program program;
  EXPECT_THROW(Parse(program, {"--help", "--config", "/nonexistent/config.yaml"}), CLI::CallForHelp);
}

TEST_F(CommandLine, ShowsTheEnvironmentTwinInItsHelp) {
  const Program program;
  EXPECT_THAT(program.app.help(), HasSubstr("ABSTRACT_TEST_LISTEN_ADDRESS"));
}

TEST_F(CommandLine, AcceptsAnEmptyFile) {
  Program program;
  Parse(program, {"--config", WriteConfig("# nothing yet\n")});
  EXPECT_EQ(program.threads, 1);
}

TEST(InitLogging, NamesUnknownLevels) {
  EXPECT_TRUE(InitLogging("test", "warning").ok());
  EXPECT_THAT(std::string(InitLogging("test", "loud").message()), HasSubstr("\"loud\""));
}

}  // namespace
}  // namespace mechinterp
