#include "clients/commands/tool.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/engine/checkpoint/safetensors.h"
#include "tests/clients/commands/tool_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RunToolWith;
using testing::TestFolder;
using testing::ToolOutcome;
using testing::ToolTest;

TEST(ToolHelp, ListsAllSubcommands) {
  const ToolOutcome help = RunToolWith({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* command : {"generate", "tokenize", "cache", "patch", "model", "hooks", "baseline",
                              "patching", "ablation", "compare", "import", "doctor"}) {
    EXPECT_THAT(help.out, HasSubstr(std::string("\n  ") + command + " "));
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

TEST(ToolHelp, SaysWhatToDoWithoutAServer) {
  const ToolOutcome outcome = RunToolWith({"model", "--server", "127.0.0.1:1", "--max-attempts", "1"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("UNAVAILABLE"));
  EXPECT_THAT(outcome.err, HasSubstr("is the server running?"));
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
  EXPECT_THAT(Run({"patch", "hi", "--site", "blocks.*", "--edit", "zero"}).err,
              HasSubstr("names 4 hook points"));
  EXPECT_THAT(Run({"patch", "hi", "--site", "blocks.2.attn.hook_z"}).err, HasSubstr("--source-prompt"));
  EXPECT_THAT(Run({"patch", "hi", "--site", "blocks.2.attn.hook_z", "--edit", "add"}).err,
              HasSubstr("--vector"));
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
