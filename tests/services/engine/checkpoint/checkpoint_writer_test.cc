// The writer of checkpoints: what it writes can be read, and what it cannot write
// leaves nothing behind.

#include "services/engine/checkpoint/checkpoint_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// `bytes` of the tensor's own letter, in pieces of 1000.
TensorSource Filled(const std::string& name, NumberFormat dtype, std::vector<int64_t> shape, uint64_t bytes) {
  return {name, dtype, std::move(shape), [=](const ByteSink& sink) {
            const std::vector<std::byte> piece(1000, static_cast<std::byte>(name[0]));
            for (uint64_t left = bytes; left > 0;) {
              const size_t size = std::min<uint64_t>(left, piece.size());
              if (absl::Status status = sink(absl::MakeConstSpan(piece.data(), size)); !status.ok())
                return status;
              left -= size;
            }
            return absl::OkStatus();
          }};
}
TensorSource Filled(const std::string& name, int64_t bytes) {
  return Filled(name, NumberFormat::kUint8, {bytes}, static_cast<uint64_t>(bytes));
}

class CheckpointWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("abstract-writer-" + std::to_string(::getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
    directory_ = root_ / "model";
  }
  void TearDown() override { fs::remove_all(root_); }

  absl::Status Write(const std::vector<TensorSource>& tensors, const CheckpointFiles& files = {},
                     const CheckpointWriteOptions& options = {}) {
    return WriteCheckpoint(directory_.string(), tensors, files, options);
  }
  // Fails to write, leaves nothing, and says why.
  std::string Error(const std::vector<TensorSource>& tensors, const CheckpointFiles& files = {}) {
    const absl::Status status = Write(tensors, files);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(Left(), IsEmpty());
    return std::string(status.message());
  }
  std::vector<std::string> Names(const fs::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  std::vector<std::string> Left() { return Names(root_); }
  std::string Read(const std::string& file) {
    std::ifstream in(directory_ / file, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }

  fs::path root_, directory_;
};

TEST_F(CheckpointWriterTest, OneFileOfEveryTypeEachAlignedToItsElements) {
  // The odd bytes come first, so that only sorting can align the rest.
  std::vector<TensorSource> tensors = {Filled("u8", NumberFormat::kUint8, {7}, 7),
                                       Filled("i8", NumberFormat::kInt8, {3, 1}, 3),
                                       Filled("bool", NumberFormat::kBool, {}, 1),
                                       Filled("half", NumberFormat::kFloat16, {3}, 6),
                                       Filled("wide", NumberFormat::kFloat64, {2, 2}, 32),
                                       Filled("long", NumberFormat::kInt64, {1}, 8),
                                       Filled("none", NumberFormat::kFloat32, {0, 5}, 0),
                                       Filled("float", NumberFormat::kFloat32, {1000, 3}, 12000),
                                       Filled("int", NumberFormat::kInt32, {1}, 4),
                                       Filled("brain", NumberFormat::kBFloat16, {5}, 10)};
  ASSERT_THAT(Write(tensors, {{"config.json", "{}\n"}}), IsOk());
  EXPECT_THAT(Left(), ElementsAre("model"));
  EXPECT_THAT(Names(directory_), ElementsAre("config.json", "model.safetensors"));
  EXPECT_EQ(Read("config.json"), "{}\n");

  const auto file = SafetensorsFile::Open((directory_ / "model.safetensors").string());
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->metadata().at("format"), "pt");  // transformers insists
  EXPECT_EQ((*file)->tensors().size(), tensors.size());
  uint64_t tensor_bytes = 0;
  for (const TensorSource& tensor : tensors) {
    tensor_bytes += *TensorBytes(tensor);
    const TensorView* view = (*file)->Find(tensor.name);
    ASSERT_NE(view, nullptr) << tensor.name;
    EXPECT_EQ(view->dtype, tensor.dtype) << tensor.name;
    EXPECT_EQ(view->shape, tensor.shape) << tensor.name;
    EXPECT_EQ(view->bytes.size(), *TensorBytes(tensor)) << tensor.name;
    // The mapping starts at a page.
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->bytes.data()) % ByteWidth(view->dtype), 0u) << tensor.name;
    for (std::byte byte : view->bytes) ASSERT_EQ(byte, static_cast<std::byte>(tensor.name[0]));
  }
  // No holes, which the reference implementation refuses.
  uint64_t header_bytes;
  std::memcpy(&header_bytes, Read("model.safetensors").data(), 8);
  EXPECT_EQ(fs::file_size(directory_ / "model.safetensors"), 8 + header_bytes + tensor_bytes);
}

TEST_F(CheckpointWriterTest, ShardsAreCutInOrderWhereTheNextTensorDoesNotFit) {
  ASSERT_THAT(Write({Filled("a", 600), Filled("b", 400), Filled("c", 1), Filled("d", 5000), Filled("e", 999)},
                    {}, {.shard_bytes = 1000}),
              IsOk());
  const json index = json::parse(Read("model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 600 + 400 + 1 + 5000 + 999);
  const json expected = {{"a", "model-00001-of-00004.safetensors"},
                         {"b", "model-00001-of-00004.safetensors"},
                         {"c", "model-00002-of-00004.safetensors"},
                         {"d", "model-00003-of-00004.safetensors"},  // larger than a shard may be
                         {"e", "model-00004-of-00004.safetensors"}};
  EXPECT_EQ(index["weight_map"], expected);
  for (const auto& [tensor, shard] : expected.items()) {
    const auto file = SafetensorsFile::Open((directory_ / shard.get<std::string>()).string());
    ASSERT_THAT(file, IsOk());
    EXPECT_NE((*file)->Find(tensor), nullptr);
  }
}

TEST_F(CheckpointWriterTest, MakesTheFoldersAroundAndTakesATrailingSlash) {
  ASSERT_THAT(WriteCheckpoint((root_ / "x" / "y").string() + "/", {Filled("a", 1)}, {}), IsOk());
  EXPECT_TRUE(fs::exists(root_ / "x" / "y" / "model.safetensors"));
}

TEST_F(CheckpointWriterTest, LeavesWhatIsThereAsItIs) {
  fs::create_directories(directory_);  // even an empty one
  absl::Status status = Write({Filled("a", 1)});
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr(directory_.string() + " exists already"));
  EXPECT_THAT(Names(directory_), IsEmpty());

  fs::remove_all(directory_);
  fs::create_symlink("/nowhere", directory_);
  EXPECT_EQ(Write({Filled("a", 1)}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Left(), ElementsAre("model"));
}

TEST_F(CheckpointWriterTest, ASourceThatHandsOverTooFewOrTooManyBytes) {
  EXPECT_THAT(Error({Filled("good", 1), Filled("bad", NumberFormat::kFloat32, {2, 3}, 23)}),
              HasSubstr("tensor 'bad': its source hands over 23 bytes, its shape [2, 3] needs 24"));
  EXPECT_THAT(Error({Filled("bad", NumberFormat::kFloat32, {2, 3}, 25)}),
              HasSubstr("tensor 'bad': its source hands over more than the 24 bytes"));
}

TEST_F(CheckpointWriterTest, ASourceThatDoesNotHeedTheSinksError) {
  TensorSource deaf = Filled("deaf", 10);
  deaf.write = [](const ByteSink& sink) {
    const std::vector<std::byte> piece(10);
    (void)sink(absl::MakeConstSpan(piece.data(), 10));
    (void)sink(absl::MakeConstSpan(piece.data(), 1));
    return absl::OkStatus();
  };
  EXPECT_THAT(Error({deaf}), HasSubstr("tensor 'deaf': its source hands over more than"));
}

TEST_F(CheckpointWriterTest, ASourceThatFailsHalfway) {
  TensorSource failing = Filled("failing", 2000);
  failing.write = [](const ByteSink& sink) {
    const std::vector<std::byte> piece(1000);
    if (absl::Status status = sink(piece); !status.ok()) return status;
    return absl::DataLossError("cannot be quantized");
  };
  const absl::Status status = Write({Filled("a", 1), failing}, {{"config.json", "{}"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "tensor 'failing': cannot be quantized");
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(CheckpointWriterTest, ASourceThatThrows) {
  TensorSource throwing = Filled("throwing", 1);
  throwing.write = [](const ByteSink&) -> absl::Status { throw std::runtime_error("out of memory"); };
  EXPECT_THROW((void)Write({throwing}), std::runtime_error);
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(CheckpointWriterTest, BadTensorsAreRefusedBeforeAnySourceIsCalled) {
  bool called = false;
  TensorSource first = Filled("first", 1);
  first.write = [&](const ByteSink& sink) {
    called = true;
    return sink(std::vector<std::byte>(1));
  };
  EXPECT_THAT(Error({first, Filled("bad", NumberFormat::kFloat32, {2, -1}, 0)}),
              HasSubstr("tensor 'bad' cannot have the shape [2, -1]"));
  EXPECT_THAT(Error({first, Filled("bad", NumberFormat::kFloat32, {int64_t{1} << 40, int64_t{1} << 40}, 0)}),
              HasSubstr("tensor 'bad' cannot have the shape"));
  EXPECT_THAT(Error({first, Filled("a", 1), Filled("a", 2)}), HasSubstr("tensor 'a' is given twice"));
  EXPECT_THAT(Error({first, Filled("__metadata__", 1)}), HasSubstr("'__metadata__'"));
  EXPECT_THAT(Error({first, Filled("\xff\xfe", 1)}), HasSubstr("not UTF-8"));
  EXPECT_FALSE(called);
}

TEST_F(CheckpointWriterTest, BadNamesOfSmallFiles) {
  for (const char* name :
       {"", ".", "..", "../config.json", "a/b", "model.safetensors.index.json", "model.safetensors"}) {
    EXPECT_THAT(Error({Filled("a", 1)}, {{name, "x"}}), HasSubstr("cannot be the name of a file")) << name;
  }
}

TEST_F(CheckpointWriterTest, NoRoomIsNoticedBeforeAnySourceIsCalled) {
  TensorSource huge = Filled("huge", NumberFormat::kUint8, {int64_t{1} << 60}, 0);
  huge.write = [](const ByteSink&) -> absl::Status { throw std::logic_error("called"); };
  const absl::Status status = Write({huge});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(directory_.string() + ": not enough room"), HasSubstr("1152921504606.8 MB")));
  EXPECT_THAT(Left(), IsEmpty());
}

// The system's limit on a file's size stands for a disk that is full: both show
// as a write that fails halfway.
TEST_F(CheckpointWriterTest, AWriteThatTheSystemRefuses) {
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 64 << 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status in_tensor = Write({Filled("a", 1), Filled("big", 100 << 10)}, {{"config.json", "{}"}});
  const std::vector<std::string> left_by_tensor = Left();
  const absl::Status in_file = Write({Filled("a", 1)}, {{"tokenizer.json", std::string(100 << 10, ' ')}});
  const std::vector<std::string> left_by_file = Left();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  ::signal(SIGXFSZ, old_handler);

  EXPECT_THAT(std::string(in_tensor.message()),
              AllOf(HasSubstr("tensor 'big': cannot write"), HasSubstr("model.safetensors"),
                    HasSubstr(std::strerror(EFBIG))));
  EXPECT_THAT(left_by_tensor, IsEmpty());
  EXPECT_THAT(std::string(in_file.message()),
              AllOf(HasSubstr("tokenizer.json"), HasSubstr(std::strerror(EFBIG))));
  EXPECT_THAT(left_by_file, IsEmpty());
}

TEST_F(CheckpointWriterTest, AKilledWriterLeavesNothingToLoadAndTheNextOneClearsUp) {
  TensorSource fatal = Filled("fatal", 1);
  fatal.write = [](const ByteSink&) { return ::raise(SIGKILL), absl::OkStatus(); };
  EXPECT_EXIT((void)Write({Filled("a", 5000), fatal}, {{"config.json", "{}"}}, {.shard_bytes = 5000}),
              testing::KilledBySignal(SIGKILL), "");
  EXPECT_THAT(Left(), ElementsAre(".model.partial"));
  EXPECT_FALSE(fs::exists(root_ / ".model.partial" / "config.json"));

  ASSERT_THAT(Write({Filled("b", 1)}, {{"config.json", "{}"}}), IsOk());
  EXPECT_THAT(Left(), ElementsAre("model"));
  EXPECT_THAT(Names(directory_), ElementsAre("config.json", "model.safetensors"));
}

TEST_F(CheckpointWriterTest, TwoWritersOfOneDirectory) {
  absl::Status second;
  TensorSource outer = Filled("outer", 1);
  outer.write = [&](const ByteSink& sink) {
    second = Write({Filled("inner", 1)});
    return sink(std::vector<std::byte>(1));
  };
  ASSERT_THAT(Write({outer}), IsOk());
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()), HasSubstr("is being written by another"));
  const auto file = SafetensorsFile::Open((directory_ / "model.safetensors").string());
  ASSERT_THAT(file, IsOk());
  EXPECT_NE((*file)->Find("outer"), nullptr);
}

}  // namespace
}  // namespace mechinterp::engine
