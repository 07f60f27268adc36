#include "services/engine/checkpoint/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class WriteSafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("abstract-write-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    path_ = (folder_ / "x.safetensors").string();
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
  std::string path_;
};

TEST_F(WriteSafetensorsTest, WritesWhatCanBeReadBack) {
  const std::vector<float> values = {1.5f, -2.25f, 65504.f, 1e-7f, 3.14159f, 0.f};
  ASSERT_THAT(WriteSafetensors(path_,
                               {{"a", NumberFormat::kFloat32, {2, 3}, values},
                                {"b", NumberFormat::kFloat16, {6}, values},
                                {"c", NumberFormat::kBFloat16, {6}, values}},
                               {{"made", "here"}}),
              IsOk());
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(ToHostTensor(*(*file)->Find("a"))->values, values);
  EXPECT_EQ((*file)->metadata().at("made"), "here");
  const std::vector<float> half = ToHostTensor(*(*file)->Find("b"))->values;
  EXPECT_EQ(half[2], 65504.f);       // the largest half
  EXPECT_EQ(half[3], 0x1p-24f * 2);  // subnormal: 1e-7 / 2^-24 = 1.68, rounded
  EXPECT_EQ(half[4], 3.140625f);     // 11 bits of pi
  EXPECT_EQ(ToHostTensor(*(*file)->Find("c"))->values[4], 3.140625f);
}

TEST_F(WriteSafetensorsTest, HalvesOfMoreThanOnePiece) {
  std::vector<float> values(200'001);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 256);  // exact in bf16
  ASSERT_THAT(WriteSafetensors(path_, {{"a", NumberFormat::kBFloat16, {200'001}, values}}), IsOk());
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(ToHostTensor(*(*file)->Find("a"))->values, values);
}

TEST_F(WriteSafetensorsTest, ReplacesAFileWholeOrNotAtAll) {
  const std::vector<float> values = {1, 2, 3};
  ASSERT_THAT(WriteSafetensors(path_, {{"old", NumberFormat::kFloat32, {3}, values}}), IsOk());
  EXPECT_EQ(WriteSafetensors(path_, {{"new", NumberFormat::kFloat32, {4}, values}}).message(),
            "tensor 'new': its source hands over 12 bytes, its shape [4] needs 16");
  EXPECT_NE((*SafetensorsFile::Open(path_))->Find("old"), nullptr);
  ASSERT_THAT(WriteSafetensors(path_, {{"new", NumberFormat::kFloat32, {3}, values}}), IsOk());
  EXPECT_NE((*SafetensorsFile::Open(path_))->Find("new"), nullptr);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);  // nothing temporary is left
}

TEST_F(WriteSafetensorsTest, SaysWhatItCannotWrite) {
  const std::vector<float> values = {1};
  EXPECT_EQ(WriteSafetensors(path_, {{"a", NumberFormat::kUint8, {1}, values}}).message(),
            "cannot write tensor 'a' as U8");
  const absl::Status status = WriteSafetensors("/nowhere/x.safetensors", {});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot write /nowhere/x.safetensors"));
}

}  // namespace
}  // namespace mechinterp::engine
