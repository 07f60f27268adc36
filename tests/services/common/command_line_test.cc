#include "services/common/command_line.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/logging.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

enum class Color { kRed, kGreen };

// A program with options of every kind and a subcommand.
struct Program {
  Program() {
    const Command root = command_line.root();
    root.AddOption("--listen-address", listen_address, "Where to serve");
    root.AddOption("--threads", threads, "Threads").InRange(1, 64);
    root.AddOption("--layers", layers, "Layers").SplitAt(',').NonNegative();
    root.AddOption("--limit", limit, "Most bytes").ByteSuffixes(ByteUnits::kKiloIs1024);
    root.AddOption("--filter", filters, "Globs").OneValueEachTime();
    root.AddOption("words", words, "Words");
    root.AddChoice("--color", color, {{"red", Color::kRed}, {"green", Color::kGreen}}, "Of the output");
    const Option quiet = root.AddFlag("--quiet,-q", this->quiet, "No remarks");
    verbose_option = root.AddFlag("--verbose", verbose, "More remarks").Excludes(quiet);
    const Command baseline = root.AddSubcommand("baseline", "A subcommand");
    baseline.AddOption("--max-new-tokens", max_new_tokens, "Longest answer");
    baseline.OnChosen([this] { baseline_was_chosen = true; });
    command_line.SetVersion("program 1.2");
    command_line.UseEnvironmentAndConfig("TEST", "test");
  }

  CommandLine command_line{"Does nothing", "program"};
  std::string listen_address = "default";
  int threads = 1;
  std::vector<int> layers;
  uint64_t limit = 0;
  std::vector<std::string> filters;
  std::vector<std::string> words;
  Color color = Color::kGreen;
  bool quiet = false;
  bool verbose = false;
  int max_new_tokens = 64;
  bool baseline_was_chosen = false;
  std::optional<Option> verbose_option;
};

// What a parsing returned and printed.
struct Outcome {
  std::optional<int> exit_code;
  std::string out;
  std::string err;
};

class CommandLineTest : public ::testing::Test {
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

  static Outcome TryToParse(Program& program, const std::vector<std::string>& arguments) {
    std::vector<const char*> argv = {"program"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::ostringstream out, err;
    const std::optional<int> exit_code =
        program.command_line.Parse(static_cast<int>(argv.size()), argv.data(), out, err);
    return {exit_code, out.str(), err.str()};
  }

  static void Parse(Program& program, const std::vector<std::string>& arguments) {
    const Outcome outcome = TryToParse(program, arguments);
    EXPECT_FALSE(outcome.exit_code.has_value()) << outcome.out << outcome.err;
  }

  // What is printed about a wrong command line.
  static std::string ErrorOf(const std::vector<std::string>& arguments) {
    Program program;
    const Outcome outcome = TryToParse(program, arguments);
    if (outcome.exit_code.value_or(0) == 0) return "no error";
    return outcome.err;
  }

  static std::string OutputOf(const std::vector<std::string>& arguments) {
    Program program;
    const Outcome outcome = TryToParse(program, arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  }

 private:
  std::vector<std::string> set_;
  const std::string file_ = ::testing::TempDir() + "/" + std::to_string(getpid()) + "-command_line_test.yaml";
};

TEST_F(CommandLineTest, KeepsDefaults) {
  Program program;
  Parse(program, {});
  EXPECT_EQ(program.listen_address, "default");
}

TEST_F(CommandLineTest, ReadsWholeNumbersAsTheyAreWritten) {
  EXPECT_THAT(ErrorOf({"--threads", "010"}), HasSubstr("010 is not a whole number"));
  EXPECT_THAT(ErrorOf({"--threads", "0x10"}), HasSubstr("0x10 is not a whole number"));
  EXPECT_THAT(ErrorOf({"--limit", "-1"}), HasSubstr("--limit"));
  EXPECT_THAT(ErrorOf({"--limit", "18446744073709551616"}), HasSubstr("--limit"));
  Program program;
  Parse(program, {"--threads", "10", "--limit", "0"});
  EXPECT_EQ(program.threads, 10);
}

TEST_F(CommandLineTest, BeatsEnvironmentWhichBeatsFileWhichBeatsDefault) {
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

TEST_F(CommandLineTest, ReadsListsFlagsDashesAndSubcommandsFromYaml) {
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

TEST_F(CommandLineTest, GivesSubcommandsEnvironmentTwinsToo) {
  SetEnvironment("ABSTRACT_TEST_MAX_NEW_TOKENS", "9");
  Program program;
  Parse(program, {"baseline"});
  EXPECT_EQ(program.max_new_tokens, 9);
}

TEST_F(CommandLineTest, ReadsTheConfigPathFromTheEnvironment) {
  SetEnvironment("ABSTRACT_TEST_CONFIG", WriteConfig("test: {threads: 5}"));
  Program program;
  Parse(program, {});
  EXPECT_EQ(program.threads, 5);
  SetEnvironment("ABSTRACT_TEST_CONFIG", "/nonexistent/config.yaml");
  EXPECT_THAT(ErrorOf({}), HasSubstr("/nonexistent/config.yaml"));
}

TEST_F(CommandLineTest, NamesUnknownKeys) {
  const std::string file = WriteConfig("test:\n  threads: 2\n  colour: blue\n");
  EXPECT_THAT(ErrorOf({"--config", file}), AllOf(HasSubstr(file + ":3"), HasSubstr("\"test.colour\"")));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {baseline: {top_k: 3}}")}),
              HasSubstr("\"test.baseline.top_k\""));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {config: other.yaml}")}), HasSubstr("\"test.config\""));
}

TEST_F(CommandLineTest, ExplainsFilesItCannotRead) {
  EXPECT_THAT(ErrorOf({"--config", "/nonexistent/config.yaml"}), HasSubstr("/nonexistent/config.yaml"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: [unclosed\n")}), HasSubstr("command_line_test.yaml"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("tset: {threads: 2}\n")}), HasSubstr("no section \"test\""));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: 3\n")}), HasSubstr("expected a map"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {threads: {a: 1}}\n")}), HasSubstr("\"test.threads\""));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {threads: many}\n")}), HasSubstr("threads"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: " + std::string(100'000, '['))}),
              HasSubstr("command_line_test.yaml"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("#" + std::string(1 << 20, '#'))}),
              AllOf(HasSubstr("command_line_test.yaml"), HasSubstr("at most 1048576 can be right")));
  EXPECT_THAT(ErrorOf({"--config", "/dev/zero"}), HasSubstr("/dev/zero: not a regular file"));
}

TEST_F(CommandLineTest, AnswersHelpEvenWithABrokenFile) {
  EXPECT_THAT(OutputOf({"--help", "--config", "/nonexistent/config.yaml"}), HasSubstr("Does nothing"));
}

TEST_F(CommandLineTest, ShowsTheEnvironmentTwinInItsHelp) {
  EXPECT_THAT(OutputOf({"--help"}), HasSubstr("ABSTRACT_TEST_LISTEN_ADDRESS"));
}

TEST_F(CommandLineTest, ShowsDefaultsThatAreNotEmptyInItsHelp) {
  const std::string help = OutputOf({"--help"});
  EXPECT_THAT(help, HasSubstr("--listen-address TEXT=default"));
  EXPECT_THAT(help, HasSubstr("--threads INT:INT in [1 - 64]=1"));
  EXPECT_THAT(help, HasSubstr("--color TEXT:{red,green}=green"));
  EXPECT_THAT(help, ::testing::Not(HasSubstr("[]")));  // an empty list
}

TEST_F(CommandLineTest, PrintsTheVersion) { EXPECT_EQ(OutputOf({"--version"}), "program 1.2\n"); }

TEST_F(CommandLineTest, PrintsTheVersionAfterASubcommandToo) {
  Program program;
  program.command_line.RequireSubcommand();
  const Outcome outcome = TryToParse(program, {"baseline", "--version"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.out, "program 1.2\n");
}

TEST_F(CommandLineTest, SaysWhichCommandOrOptionWasMeant) {
  const auto error_of = [](const std::vector<std::string>& arguments) {
    Program program;
    program.command_line.RequireSubcommand();
    const Outcome outcome = TryToParse(program, arguments);
    EXPECT_NE(outcome.exit_code.value_or(0), 0);
    return outcome.err;
  };
  EXPECT_THAT(error_of({"--thraeds", "3", "baseline"}),
              StartsWith("program: there is no option --thraeds; did you mean --threads?\n"));
  EXPECT_THAT(error_of({"baseline", "--max-new-token=3"}),
              StartsWith("program: there is no option --max-new-token; did you mean --max-new-tokens?\n"
                         "program baseline --help"));
  EXPECT_THAT(error_of({"baseline", "--frobnicate"}),
              StartsWith("program: there is no option --frobnicate\n"));
}

TEST_F(CommandLineTest, SaysWhichKeyWasMeant) {
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {thread: 2}")}),
              HasSubstr("unknown option \"test.thread\"; did you mean threads?"));
  EXPECT_THAT(ErrorOf({"--config", WriteConfig("test: {baseline: {max_new_token: 2}}")}),
              HasSubstr("did you mean max-new-tokens?"));
}

TEST_F(CommandLineTest, DescribesItself) {
  Program program;
  Parse(program, {});
  const CommandDescription description = program.command_line.Describe();
  EXPECT_EQ(description.name, "program");
  const auto find = [](const CommandDescription& command, const std::string& name) {
    for (const OptionDescription& option : command.options) {
      if (option.names.front() == name) return option;
    }
    ADD_FAILURE() << name;
    return OptionDescription();
  };
  EXPECT_THAT(find(description, "--color").choices, ElementsAre("red", "green"));
  EXPECT_EQ(find(description, "--color").value, "TEXT:{red,green}=green");
  EXPECT_THAT(find(description, "--quiet").names, ElementsAre("--quiet", "-q"));
  EXPECT_FALSE(find(description, "--quiet").takes_value);
  EXPECT_TRUE(find(description, "words").is_positional);
  EXPECT_EQ(find(description, "--threads").environment, "ABSTRACT_TEST_THREADS");
  ASSERT_EQ(description.subcommands.size(), 1u);
  EXPECT_EQ(find(description.subcommands[0], "--max-new-tokens").help, "Longest answer");
}

TEST_F(CommandLineTest, PrintsItsManualPage) {
  const std::string page = OutputOf({"--manual-page"});
  EXPECT_THAT(page, StartsWith(".TH PROGRAM 1"));
  EXPECT_THAT(page, HasSubstr("\\fB\\-\\-listen\\-address\\fR"));
  EXPECT_THAT(page, ::testing::Not(HasSubstr("manual")));  // hidden, as in --help
}

TEST_F(CommandLineTest, StoresEachKindOfValue) {
  Program program;
  Parse(program, {"--layers", "1,2", "--limit", "3KB", "--color", "red", "--filter", "a", "--filter", "b",
                  "one", "two", "-q"});
  EXPECT_THAT(program.layers, ElementsAre(1, 2));
  EXPECT_EQ(program.limit, 3 * 1024);
  EXPECT_EQ(program.color, Color::kRed);
  EXPECT_THAT(program.filters, ElementsAre("a", "b"));
  EXPECT_THAT(program.words, ElementsAre("one", "two"));
  EXPECT_TRUE(program.quiet);
  EXPECT_FALSE(program.baseline_was_chosen);
}

TEST_F(CommandLineTest, ChecksValues) {
  EXPECT_THAT(ErrorOf({"--threads", "65"}), AllOf(HasSubstr("--threads"), HasSubstr("65")));
  EXPECT_THAT(ErrorOf({"--layers", "1,-2"}), AllOf(HasSubstr("--layers"), HasSubstr("-2")));
  EXPECT_THAT(ErrorOf({"--limit", "3XB"}), HasSubstr("--limit"));
  EXPECT_THAT(ErrorOf({"--color", "blue"}), AllOf(HasSubstr("--color"), HasSubstr("blue")));
  EXPECT_THAT(ErrorOf({"--quiet", "--verbose"}), HasSubstr("excludes"));
  EXPECT_THAT(ErrorOf({"--colour", "red"}), HasSubstr("--colour"));
}

TEST_F(CommandLineTest, KnowsWhatWasGivenAndChosen) {
  Program program;
  Parse(program, {"--verbose", "baseline"});
  EXPECT_TRUE(program.verbose_option->given());
  EXPECT_TRUE(program.baseline_was_chosen);
  Program other;
  Parse(other, {});
  EXPECT_FALSE(other.verbose_option->given());
}

TEST_F(CommandLineTest, CanRequireASubcommandThatOptionsMayFollow) {
  Program program;
  program.command_line.RequireSubcommand();
  EXPECT_NE(TryToParse(program, {}).exit_code.value_or(0), 0);
  Program other;
  other.command_line.RequireSubcommand();
  Parse(other, {"baseline", "--threads", "3"});
  EXPECT_EQ(other.threads, 3);
}

TEST_F(CommandLineTest, AcceptsAnEmptyFile) {
  Program program;
  Parse(program, {"--config", WriteConfig("# nothing yet\n")});
  EXPECT_EQ(program.threads, 1);
}

TEST(InitLogging, NamesUnknownLevels) {
  EXPECT_THAT(InitLogging("test", "warning"), IsOk());
  EXPECT_THAT(std::string(InitLogging("test", "loud").message()), HasSubstr("\"loud\""));
}

}  // namespace
}  // namespace mechinterp
