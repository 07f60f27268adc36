#include "clients/commands/tool.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/common/experiments.h"
#include "services/common/version.h"
#include "services/engine/checkpoint/safetensors.h"
#include "services/engine/checkpoint/safetensors_writer.h"
#include "tests/clients/commands/tool_fixture.h"
#include "tests/clients/slow_link.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;
using testing::RunToolWith;
using ::testing::StartsWith;
using testing::TestFolder;
using testing::ToolOutcome;
using testing::ToolTest;

// Those that a help text lists.
std::vector<std::string> SubcommandsIn(const std::string& help) {
  const std::string list = help.substr(help.find("Subcommands:\n"));
  std::vector<std::string> names;
  for (const absl::string_view line : absl::StrSplit(list.substr(0, list.find("\n\n")), '\n')) {
    if (absl::StartsWith(line, "  ") && !absl::StartsWith(line, "   ")) {
      names.emplace_back(line.substr(2, line.find(' ', 2) - 2));
    }
  }
  return names;
}

TEST(ToolHelp, ListsAllSubcommands) {
  const ToolOutcome help = RunToolWith({"--help"});
  EXPECT_EQ(help.code, 0);
  std::vector<std::string> commands = SubcommandsIn(help.out);
  for (const ExperimentInfo& experiment : Experiments()) EXPECT_THAT(commands, Contains(experiment.name));
  EXPECT_THAT(commands, IsSupersetOf({"generate", "tokenize", "cache", "patch", "model", "hooks", "import",
                                      "doctor", "completion"}));
  for (const std::string& command : commands) {
    const ToolOutcome command_help = RunToolWith({command, "--help"});
    EXPECT_EQ(command_help.code, 0) << command;
    EXPECT_THAT(command_help.out, HasSubstr("--server")) << command;  // Tells of the common options.
  }
}

TEST(ToolHelp, WrongCommandLinesExitWithTwo) {
  EXPECT_EQ(RunToolWith({}).code, 2);
  EXPECT_EQ(RunToolWith({"no-such-command"}).code, 2);
  EXPECT_EQ(RunToolWith({"model", "--no-such-flag"}).code, 2);
  EXPECT_EQ(RunToolWith({"ablation", "--methods", "magic"}).code, 2);
}

TEST(ToolHelp, SaysWhatWasMeant) {
  EXPECT_THAT(RunToolWith({"genrate", "hello"}).err,
              HasSubstr("there is no command \"genrate\"; did you mean generate?"));
  EXPECT_THAT(RunToolWith({"generate", "--temprature", "1", "hello"}).err,
              HasSubstr("there is no option --temprature; did you mean --temperature?"));
  EXPECT_THAT(RunToolWith({"compare", "--othr-server", "x:1"}).err,
              HasSubstr("did you mean --other-server?"));
}

TEST(ToolHelp, PrintsVersionCompletionsAndManualPage) {
  EXPECT_EQ(RunToolWith({"--version"}).out, absl::StrCat("abstract ", kVersion, "\n"));
  EXPECT_EQ(RunToolWith({"generate", "--version"}).out, absl::StrCat("abstract ", kVersion, "\n"));
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const ToolOutcome outcome = RunToolWith({"completion", shell});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.out,
                AllOf(HasSubstr("project-out"), HasSubstr("max-new-tokens"), HasSubstr("doctor")));
  }
  EXPECT_EQ(RunToolWith({"completion", "tcsh"}).code, 2);
  EXPECT_THAT(RunToolWith({"--manual-page"}).out,
              AllOf(HasSubstr(".SS \\fBpatch\\fR"), HasSubstr("ABSTRACT_MAX_NEW_TOKENS")));
}

// Remembers when the first line was written.
class FirstLine : public std::stringbuf {
 public:
  absl::Time time() const { return time_; }

 protected:
  int sync() override {
    if (time_ == absl::InfiniteFuture()) time_ = absl::Now();
    return 0;
  }

 private:
  absl::Time time_ = absl::InfiniteFuture();
};

TEST(ToolWithoutAServer, SaysSoWithinASecond) {
  const testing::SilentPort silent;
  for (const std::string& address : {std::string("127.0.0.1:1"), silent.address()}) {
    const char* const argv[] = {"abstract", "--server",  address.c_str(), "--max-attempts",
                                "2",        "--timeout", "1.5",           "model"};
    std::istringstream in;
    std::ostringstream out;
    FirstLine buffer;
    std::ostream err(&buffer);
    const absl::Time begin = absl::Now();
    EXPECT_EQ(RunTool(8, argv, {in, out, err}), 1);
    EXPECT_LT(buffer.time() - begin, absl::Seconds(1)) << address;
    EXPECT_THAT(buffer.str(), StartsWith("no answer from " + address));
  }
}

TEST(ToolHelp, SaysWhatToDoWithoutAServer) {
  const ToolOutcome outcome = RunToolWith({"model", "--server", "127.0.0.1:1", "--max-attempts", "1"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("UNAVAILABLE"));
  EXPECT_THAT(outcome.err, HasSubstr("is the server running?"));
}

TEST_F(ToolTest, SaysWhereAPromptIsNotUtf8) {
  const ToolOutcome piped = Run({"generate", "--raw", "-"}, "ab\xff\xfe");
  EXPECT_EQ(piped.code, 1);
  EXPECT_THAT(piped.err, HasSubstr("the prompt is not UTF-8: byte at index 2"));
  EXPECT_THAT(Run({"generate", "hello", "--system", "\xe9"}).err, HasSubstr("--system is not UTF-8"));
  EXPECT_EQ(fake_.service.call_count("Generate"), 0);
}

TEST_F(ToolTest, TakesAnEmptySelectorForAMistake) {
  for (const char* option : {"--head", "--dims", "--positions"}) {
    const ToolOutcome outcome =
        Run({"patch", "hello", "--site", "blocks.2.attn.hook_z", "--edit", "zero", option, ""});
    EXPECT_EQ(outcome.code, 2) << option;
    EXPECT_THAT(outcome.err, HasSubstr(option));
  }
}

TEST_F(ToolTest, PatchReadsThePhrasesThatItIsTold) {
  const ToolOutcome outcome = Run({"patch", "hello", "--site", "blocks.2.attn.hook_z", "--edit", "zero",
                                   "--refusal-phrases", "/nonexistent/phrases.json"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("/nonexistent/phrases.json"));
}

TEST_F(ToolTest, ModelTellsWhatIsServedAndHowItIs) {
  const ToolOutcome outcome = Run({"model"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("toy"));
  EXPECT_THAT(outcome.out, HasSubstr("4 of size 4, 2 for keys and values"));
  EXPECT_THAT(outcome.out, HasSubstr("llama3"));
  EXPECT_THAT(outcome.out, HasSubstr("health: serving"));
}

TEST_F(ToolTest, HooksListsByGlob) {
  const ToolOutcome outcome = Run({"hooks", "blocks.1.*"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("blocks.1.attn.hook_z  [T, 4, 4]"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("blocks.2")));
}

TEST_F(ToolTest, HooksTellsWhatPointsAllowWhereOneDoesNotAllowAll) {
  EXPECT_THAT(Run({"hooks"}).out, Not(HasSubstr("edit")));
  fake_.service.set_hooks_are_editable(false);
  const ToolOutcome outcome = Run({"hooks"});
  EXPECT_THAT(outcome.out, HasSubstr("capture"));
  EXPECT_THAT(outcome.out, ContainsRegex("hook_z  \\[T, 4, 4\\] +yes +no\n"));
}

TEST_F(ToolTest, GenerateTakesAMessageFromArgumentsOrTheStandardInput) {
  EXPECT_EQ(Run({"generate", "make", "a", "bomb"}).out, "I cannot help with that.\n");
  EXPECT_EQ(Run({"generate"}, "make a cake\n").out, "Here is how.\n");
  const auto requests = fake_.service.generate_requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].prompt().chat().messages(0).content(), "make a bomb");
  EXPECT_EQ(requests[1].prompt().chat().messages(0).content(), "make a cake");
}

TEST_F(ToolTest, GenerateSendsWhatItsFlagsSay) {
  ASSERT_EQ(Run({"generate", "hi", "--system", "be kind", "--temperature", "0.5", "--top-k", "3", "--seed",
                 "7", "--max-new-tokens", "9"})
                .code,
            0);
  ASSERT_EQ(Run({"generate", "--raw", "Once upon"}).code, 0);
  ASSERT_EQ(Run({"generate", "--token-ids", "1,5:7"}).code, 0);
  const auto requests = fake_.service.generate_requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].prompt().chat().messages_size(), 2);
  EXPECT_EQ(requests[0].sampling().temperature(), 0.5);
  EXPECT_EQ(requests[0].sampling().top_k(), 3u);
  EXPECT_EQ(requests[0].sampling().seed(), 7u);
  EXPECT_EQ(requests[0].sampling().max_new_tokens(), 9u);
  EXPECT_EQ(requests[1].prompt().text(), "Once upon");
  EXPECT_THAT(requests[2].prompt().token_ids().ids(), ::testing::ElementsAre(1, 5, 6));
}

TEST_F(ToolTest, GenerateRejectsAnEmptyPrompt) {
  const ToolOutcome outcome = Run({"generate"}, " \n");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("the prompt is empty"));
}

TEST_F(ToolTest, TokenizeMarksTheLastInstructionToken) {
  const ToolOutcome outcome = Run({"tokenize", "make a bomb"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("\"bomb\"  <- last instruction token"));
  EXPECT_THAT(outcome.out, HasSubstr("\"\\n\\n\""));
  EXPECT_EQ(Run({"tokenize", "--raw", "--omit-begin-of-text", "--ids", "I I Here"}).out, "7,7,8\n");
}

TEST_F(ToolTest, CacheWritesSafetensorsWithWhatMadeThem) {
  const std::string path = folder_.File("logits.safetensors");
  const ToolOutcome outcome =
      Run({"cache", "make a bomb", "--filter", "logits", "--positions", "-1", "-o", path});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, path + "\n");
  const auto file = engine::SafetensorsFile::Open(path);
  ASSERT_THAT(file, IsOk());
  const engine::TensorView* const view = (*file)->Find("logits");
  ASSERT_NE(view, nullptr);
  const auto tensor = engine::ToHostTensor(*view);
  ASSERT_THAT(tensor, IsOk());
  std::vector<uint32_t> context;
  std::vector<float> expected;
  for (const absl::string_view id :
       absl::StrSplit((*file)->metadata().find("prompt_token_ids")->second, ',', absl::SkipEmpty())) {
    context.push_back(static_cast<uint32_t>(std::stoul(std::string(id))));
    const std::vector<float> row = testing::ToyLogits(context, {});
    expected.insert(expected.end(), row.begin(), row.end());
  }
  EXPECT_THAT(tensor->shape, ::testing::ElementsAre(static_cast<int64_t>(context.size()), 128));
  EXPECT_EQ(tensor->values, expected);
  EXPECT_EQ((*file)->metadata().find("model")->second, "toy");
  EXPECT_EQ((*file)->metadata().find("positions")->second, "-1");
}

TEST_F(ToolTest, CacheStoresOnTheServer) {
  EXPECT_EQ(Run({"cache", "make a bomb", "--filter", "*", "--store"}).out, "run-0\n");
  EXPECT_EQ(fake_.service.stored_run_count(), 1);
}

TEST_F(ToolTest, CacheNoticesAFileItCannotWriteBeforeItAsks) {
  const ToolOutcome outcome = Run({"cache", "hi", "--filter", "logits", "-o", prompts_ + "/file"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("prompts.json/file"));
  EXPECT_EQ(fake_.service.call_count("RunWithCache"), 0);
}

TEST_F(ToolTest, PatchComparesWithTheCleanRun) {
  const ToolOutcome outcome = Run({"patch", "make a cake", "--site", "blocks.2.attn.hook_z", "--head", "1",
                                   "--positions", "decision", "--source-prompt", "make a bomb"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("-4.5000  -0.5000  +4.0000"));
  EXPECT_THAT(outcome.out, HasSubstr("clean:   Here is how."));
}

TEST_F(ToolTest, PatchNamesTheFlagAtFault) {
  EXPECT_THAT(Run({"patch", "hi", "--edit", "zero"}).err, HasSubstr("--site: say where"));
  EXPECT_THAT(Run({"patch", "hi", "--site", "block.*", "--edit", "zero"}).err,
              HasSubstr("--site: \"block.*\" names no hook point"));
  EXPECT_THAT(Run({"patch", "hi", "--site", "blocks.2.attn.hook_z"}).err, HasSubstr("--source-prompt"));
  EXPECT_THAT(Run({"patch", "hi", "--site", "blocks.2.attn.hook_z", "--edit", "add"}).err,
              HasSubstr("--vector"));
}

TEST_F(ToolTest, PatchEditsEverySiteThatIsNamedOnce) {
  const std::string direction = folder_.File("direction.safetensors");
  const std::vector<float> values = {1, 2, 3, 4};
  const std::vector<engine::TensorToWrite> tensors = {{.name = "refusal", .shape = {4}, .values = values}};
  ASSERT_THAT(engine::WriteSafetensors(direction, tensors, {}), IsOk());
  Run({"patch", "make a bomb", "--site", "blocks.2.*", "--site", "blocks.[0-2].attn.hook_z", "--edit",
       "project-out", "--vector", direction + ":refusal"});
  const auto requests = fake_.service.patch_requests();
  ASSERT_EQ(requests.size(), 1u);
  std::vector<uint32_t> layers;
  for (const v1::Intervention& intervention : requests[0].interventions()) {
    layers.push_back(intervention.site().layer());
    EXPECT_EQ(intervention.site().point(), v1::HOOK_POINT_Z);
    EXPECT_EQ(intervention.projection_removal().direction().data().size(), 16u);
  }
  EXPECT_THAT(layers, ::testing::ElementsAre(2, 0, 1));
}

TEST_F(ToolTest, PatchLeavesOutSitesThatCannotBeEdited) {
  fake_.service.set_hooks_are_editable(false);
  EXPECT_THAT(Run({"patch", "hi", "--site", "blocks.*", "--edit", "zero"}).err,
              HasSubstr("names no hook point that can be edited"));
}

TEST_F(ToolTest, PrintsTokenIdsOfAModelWithoutATokenizer) {
  fake_.service.set_has_tokenizer(false);
  fake_.service.set_continuation({5, 9, 17});
  const ToolOutcome patch = Run({"patch", "--token-ids", "1,2", "--site", "blocks.2.*", "--edit", "zero"});
  ASSERT_EQ(patch.code, 0) << patch.err;
  EXPECT_THAT(patch.out, HasSubstr("\nclean:   5 9 17\npatched: 5 9 17\n"));
  EXPECT_EQ(Run({"generate", "--token-ids", "1,2"}).out, "5 9 17\n");
}

TEST_F(ToolTest, EveryCommandPrintsOneJsonDocument) {
  const std::string file = folder_.File("z.safetensors");
  const std::vector<std::pair<std::vector<std::string>, std::string>> commands = {
      {{"model"}, "identity"},
      {{"hooks"}, "hook_points"},
      {{"tokenize", "make a bomb"}, "ids"},
      {{"tokenize", "--decode", "1,2"}, "text"},
      {{"generate", "make a bomb"}, "continuation"},
      {{"patch", "make a bomb", "--site", "blocks.2.*", "--edit", "zero"}, "patched"},
      {{"cache", "make a bomb", "--filter", "logits", "-o", file}, "output_path"},
      {{"cache", "make a bomb", "--filter", "*", "--store"}, "summary"},
      {{"doctor"}, "speeds"},
  };
  for (auto [arguments, field] : commands) {
    arguments.push_back("--json");
    const ToolOutcome outcome = Run(arguments);
    const auto document = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(document.is_object()) << arguments[0] << ": " << outcome.out << outcome.err;
    EXPECT_TRUE(document.contains(field)) << arguments[0] << ": " << outcome.out;
  }
}

TEST_F(ToolTest, ShowsColoursOnTerminalsOnly) {
  const std::vector<std::string> arguments = {"hooks", "--server", fake_.address()};
  setenv("TERM", "xterm", 1);
  unsetenv("NO_COLOR");
  EXPECT_THAT(RunToolWith(arguments).out, Not(HasSubstr("\033")));
  EXPECT_THAT(RunToolWith(arguments, "", /*on_terminal=*/true).out, StartsWith("\033[1mhook point"));
  setenv("NO_COLOR", "1", 1);
  EXPECT_THAT(RunToolWith(arguments, "", /*on_terminal=*/true).out, Not(HasSubstr("\033")));
  unsetenv("NO_COLOR");
}

TEST_F(ToolTest, PatchTakesInterventionsAsJson) {
  const std::string edit = R"({"site": {"point": "HOOK_POINT_Z", "layer": 2}, "zeroing": {}})";
  const std::string list = folder_.Write("list.json", "[" + edit + "]");
  EXPECT_THAT(Run({"patch", "make a bomb", "--interventions", list}).out,
              HasSubstr("3.5000  -0.5000  -4.0000"));
  const std::string typo = folder_.Write("typo.json", R"({"interventions": [{"sight": {}}]})");
  const ToolOutcome outcome = Run({"patch", "make a bomb", "--interventions", typo});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("typo.json"));
}

TEST_F(ToolTest, OptionsComeFromEnvironmentAndFileToo) {
  const std::string config = folder_.Write("config.yaml", "client:\n  server: " + fake_.address() + "\n");
  EXPECT_THAT(RunToolWith({"model", "--config", config}).out, HasSubstr("toy"));
  setenv("ABSTRACT_SERVER", fake_.address().c_str(), 1);
  EXPECT_THAT(RunToolWith({"model"}).out, HasSubstr("toy"));
  unsetenv("ABSTRACT_SERVER");
}

TEST_F(ToolTest, ServesItsMetricsWhileItRuns) {
  const ToolOutcome outcome = Run({"model", "--metrics-address", "127.0.0.1:0"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("metrics at port "));
}

}  // namespace
}  // namespace mechinterp
