// Chat prompts of checkpoints whose published template is none that can be written.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "services/common/json_file.h"
#include "services/common/status.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// The embedded model with another chat template.
class ChatPrompts : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    const fs::path embedded = fs::path(ABSTRACT_SOURCE_DIR) / "data/models/tiny-llama-refusal";
    for (const auto& entry : fs::directory_iterator(embedded)) {
      if (entry.path().filename() != "tokenizer_config.json") {
        fs::create_symlink(entry.path(), folder_ / entry.path().filename());
      }
    }
    auto config = ReadJsonFile((embedded / "tokenizer_config.json").string());
    ASSERT_THAT(config, IsOk());
    (*config)["chat_template"] =
        "{{ bos_token }}Task: is this safe?\n{% for m in messages %}{{ m['role'] | capitalize }}: "
        "{{ m['content'] | upper }}\n{% endfor %}Answer:";
    std::ofstream(folder_ / "tokenizer_config.json") << *config;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::shared_ptr<const engine::Model> Load(const std::string& chat_template) {
    engine::LoadOptions options;
    options.chat_template = chat_template;
    const auto model = engine::Model::Load(folder_.string(), options);
    EXPECT_THAT(model, IsOk());
    return *model;
  }

  static v1::GetModelResponse Describe(ServiceFixture& service) {
    grpc::ClientContext context;
    v1::GetModelResponse description;
    EXPECT_THAT(service.stub().GetModel(&context, {}, &description), IsOk());
    return description;
  }

  // The prompt as the model reads it.
  static std::string Read(ServiceFixture& service, const v1::Prompt& prompt, grpc::Status* status) {
    v1::TokenizeRequest request;
    *request.mutable_prompt() = prompt;
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    *status = service.stub().Tokenize(&context, request, &response);
    std::string text;
    for (const std::string& piece : response.pieces()) text += piece;
    return text;
  }

  const fs::path folder_ = fs::temp_directory_path() / ("abstract-chat-prompts-" + std::to_string(getpid()));
  const v1::Prompt chat_ =
      Parse<v1::Prompt>("chat { messages { role: CHAT_ROLE_USER content: 'How? <|eot_id|>' } }");
};

TEST_F(ChatPrompts, AreRefusedWithWhatCanBeDoneWhileTextIsServed) {
  ServiceFixture service(Load("auto"));
  EXPECT_FALSE(Describe(service).has_chat_template());
  grpc::Status status;
  Read(service, chat_, &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ErrorReason(FromGrpcStatus(status)), "NO_CHAT_TEMPLATE");
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("send text or token_ids"),
                                            HasSubstr("llama3, llama3.1"), HasSubstr("a JSON file")));
  EXPECT_EQ(Read(service, Parse<v1::Prompt>("text: 'How?'"), &status), "<|begin_of_text|>How?");
  EXPECT_THAT(status, IsOk());
}

TEST_F(ChatPrompts, AreWrittenAsAFileStates) {
  const std::string format = (folder_ / "house.json").string();
  std::ofstream(format) << R"({"begin": "<|begin_of_text|>", "user": {"before": "Q: ", "after": "<|eot_id|>"},
                               "assistant": {"before": "A: ", "after": "<|end_of_text|>"}, "opening": "A:"})";
  ServiceFixture service(Load(format));
  EXPECT_EQ(Describe(service).chat_template(), "house");
  grpc::Status status;
  EXPECT_EQ(Read(service, chat_, &status), "<|begin_of_text|>Q: How? <|eot_id|><|eot_id|>A:");
  EXPECT_THAT(status, IsOk());
}

TEST_F(ChatPrompts, AreWrittenByAFormatOfThatName) {
  ServiceFixture service(Load("llama3.1"));
  EXPECT_EQ(Describe(service).chat_template(), "llama3.1");
  grpc::Status status;
  EXPECT_THAT(Read(service, chat_, &status), HasSubstr("Today Date: 26 Jul 2024"));
}

}  // namespace
}  // namespace mechinterp
