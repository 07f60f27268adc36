// The reader of safetensors files, above all of bad ones. (What a whole checkpoint
// can have wrong is in checkpoint_test.)

#include "services/engine/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("abstract-safetensors-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    path_ = (folder_ / "x.safetensors").string();
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& header, const std::string& data = "") {
    WriteWithLength(header.size(), header + data);
  }
  void WriteWithLength(uint64_t header_bytes, const std::string& rest) {
    std::ofstream out(path_, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&header_bytes), 8);
    out << rest;
  }
  absl::Status Open() { return SafetensorsFile::Open(path_).status(); }
  // The error of a file with this header and 8 bytes of data; it names the file.
  std::string Error(const std::string& header) {
    Write(header, "12345678");
    return Error();
  }
  std::string Error() {
    const absl::Status status = Open();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_ + ": not a valid safetensors file"));
    return std::string(status.message());
  }

  fs::path folder_;
  std::string path_;
};

TEST_F(SafetensorsTest, EmptyTensorsAndScalars) {
  Write(R"({"none":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},)"
        R"("far":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]},)"
        R"("one":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   )",
        std::string("\x00\x00\x80\x3f", 4));
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT(ToHostTensor(*(*file)->Find("none"))->values, IsEmpty());
  EXPECT_THAT(ToHostTensor(*(*file)->Find("far"))->values, IsEmpty());
  EXPECT_THAT(ToHostTensor(*(*file)->Find("one"))->values, testing::ElementsAre(1.0f));
}

TEST_F(SafetensorsTest, KeysThatTheFormatDoesNotKnowAreIgnored) {
  Write(R"({"a":{"dtype":"U8","shape":[1],"note":"x","rank":1,"data_offsets":[0,1]}})", "1");
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(SafetensorsTest, FilesShorterThanTheLengthOfTheirHeader) {
  std::ofstream(path_, std::ios::binary) << "";
  EXPECT_THAT(Error(), HasSubstr("only 0 bytes long"));
  std::ofstream(path_, std::ios::binary) << "1234567";
  EXPECT_THAT(Error(), HasSubstr("only 7 bytes long"));
}

TEST_F(SafetensorsTest, HeaderLengthsThatCannotBe) {
  WriteWithLength(~uint64_t{0}, "{}");  // 8 more would wrap around
  EXPECT_THAT(Error(), HasSubstr("header length 18446744073709551615 in a file of 10 bytes"));
  WriteWithLength(3, "{}");
  EXPECT_THAT(Error(), HasSubstr("header length 3 in a file of 10 bytes"));
  WriteWithLength(100'000'001, "{}");
  fs::resize_file(path_, 100'000'100);  // the file has so many, the format allows no more than 10^8
  EXPECT_THAT(Error(), HasSubstr("header length 100000001 in a file of 100000100 bytes"));
}

TEST_F(SafetensorsTest, HeadersThatAreNoJsonObject) {
  for (const char* header : {"", "[]", "3", "{\"a\":", "{} {}", "\"x\"", "{\"a\":{\"dtype\":\"F3"}) {
    EXPECT_THAT(Error(header), HasSubstr("the header is not a JSON object")) << header;
  }
}

TEST_F(SafetensorsTest, EntriesOfTheWrongKind) {
  for (const char* entry :
       {"3", "null", "{}", R"({"dtype":"U8","shape":[8]})", R"({"dtype":"U8","data_offsets":[0,8]})",
        R"({"shape":[8],"data_offsets":[0,8]})", R"({"dtype":"U8","shape":[8],"data_offsets":[8]})"}) {
    EXPECT_THAT(Error(std::string("{\"a\":") + entry + "}"),
                HasSubstr("tensor 'a' lacks dtype, shape or data_offsets"))
        << entry;
  }
  EXPECT_THAT(Error(R"({"a":[]})"), HasSubstr("tensor 'a' lacks dtype"));
  EXPECT_THAT(Error(R"({"a":{"dtype":8}})"), HasSubstr("tensor 'a' has a bad dtype"));
  EXPECT_THAT(Error(R"({"a":{"shape":8}})"), HasSubstr("tensor 'a' has a bad shape"));
  EXPECT_THAT(Error(R"({"a":{"other":[8]}})"), HasSubstr("tensor 'a' has a bad other"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"U8","dtype":"I8"}})"), HasSubstr("tensor 'a' gives dtype twice"));
  EXPECT_THAT(Error(R"({"__metadata__":3})"), HasSubstr("__metadata__ is not an object"));
  EXPECT_THAT(Error(R"({"__metadata__":{"a":{}}})"),
              HasSubstr("__metadata__ has a value that is not a string"));
  EXPECT_THAT(Error(R"({"__metadata__":{},"__metadata__":{}})"), HasSubstr("'__metadata__' is listed twice"));
}

TEST_F(SafetensorsTest, ShapesThatCannotBe) {
  for (const char* shape : {"[-1]", "[1.5]", "[\"1\"]", "[true]", "[[1]]", "[18446744073709551616]"}) {
    EXPECT_THAT(Error(std::string(R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":)") + shape + "}}"),
                HasSubstr("tensor 'a' has a bad shape"))
        << shape;
  }
  // 2^63, and products past 2^64: one wraps around to the bytes that are there.
  for (const char* shape :
       {"[9223372036854775808]", "[4611686018427387904,5]", "[2,9223372036854775807,9]"}) {
    EXPECT_THAT(Error(std::string(R"({"a":{"dtype":"F32","data_offsets":[0,0],"shape":)") + shape + "}}"),
                HasSubstr("tensor 'a' has an impossibly large shape"))
        << shape;
  }
}

TEST_F(SafetensorsTest, OffsetsThatCannotBe) {
  for (const char* offsets : {"[-1,0]", "[0,-1]", "[0,1.0]", "[0,1,2]", "[0,\"1\"]"}) {
    EXPECT_THAT(Error(std::string(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":)") + offsets + "}}"),
                HasSubstr("tensor 'a' has bad data_offsets"))
        << offsets;
  }
  // Past the end; begin after end; a difference that wraps around to the right size.
  for (const char* offsets : {"[8,9]", "[1,0]", "[18446744073709551615,0]", "[0,18446744073709551615]"}) {
    EXPECT_THAT(Error(std::string(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":)") + offsets + "}}"),
                HasSubstr("of 8 bytes of data; the file is truncated or its header is wrong"))
        << offsets;
  }
}

TEST_F(SafetensorsTest, NamesATypeThatItDoesNotKnow) {
  Write(R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", "1");
  EXPECT_EQ(Open().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Open().message()),
              HasSubstr("tensor 'a' has dtype F8_E4M3, which is not supported"));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they keep what is freed
// Built as a document, ten million levels would take 64 bytes each.
TEST_F(SafetensorsTest, HugeHeadersTakeLittleMemoryAndNoStack) {
  const auto peak_bytes = [] {
    rusage usage;
    ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    return int64_t{usage.ru_maxrss};
#else
    return int64_t{usage.ru_maxrss} * 1024;
#endif
  };
  constexpr size_t kBytes = 10'000'000;
  const std::string deep(kBytes, '['), name(kBytes, 'n');
  std::string long_shape = R"({"a":{"dtype":"U8","shape":[1)";
  while (long_shape.size() < kBytes) long_shape += ",1,1,1,1,1,1,1,1";
  const int64_t before = peak_bytes();
  EXPECT_THAT(Error(deep), HasSubstr("the header is not a JSON object"));
  EXPECT_THAT(Error(R"({"a":{"b":)" + deep), HasSubstr("tensor 'a' has a bad b"));
  EXPECT_THAT(Error(R"({"a":{"shape":[)" + deep), HasSubstr("tensor 'a' has a bad shape"));
  EXPECT_THAT(Error(R"({"__metadata__":{"b":)" + deep), HasSubstr("__metadata__ has a value"));
  EXPECT_THAT(Error(long_shape), HasSubstr("tensor 'a' has too many dimensions"));
  EXPECT_THAT(Error("{\"" + name + "\":{}}"), HasSubstr("a name of 10000000 bytes"));
  EXPECT_LT(peak_bytes() - before, 150'000'000);
}
#endif

TEST_F(SafetensorsTest, WhatIsNotAReadableFile) {
  EXPECT_EQ(Open().code(), absl::StatusCode::kNotFound);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);  // nobody will ever write to it
  EXPECT_THAT(Error(), HasSubstr("not a regular file"));
  fs::remove(path_);
  fs::create_directory(path_);
  EXPECT_THAT(Error(), HasSubstr("not a regular file"));
}

TEST_F(SafetensorsTest, AFileThatMayNotBeRead) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  Write("{}");
  fs::permissions(path_, fs::perms::none);
  EXPECT_EQ(Open().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(Open().message()), AllOf(HasSubstr(path_), HasSubstr("Permission denied")));
}

// Resident bytes of mapped files, as Linux counts them; nothing elsewhere. Those of a file system in
// memory, as /tmp often is, it counts as shared.
std::optional<int64_t> MappedResidentBytes() {
  std::ifstream status("/proc/self/status");
  std::optional<int64_t> bytes;
  for (std::string line; std::getline(status, line);) {
    for (const std::string name : {"RssFile:", "RssShmem:"}) {
      if (line.rfind(name, 0) == 0) bytes = bytes.value_or(0) + std::stoll(line.substr(name.size())) * 1024;
    }
  }
  return bytes;
}

TEST_F(SafetensorsTest, ReleasedPagesAreGoneAndCanBeReadAgain) {
  constexpr int64_t kCount = 16 << 20;
  std::string data(kCount + 3, 'x');
  data[1] = 'b', data[kCount] = 'e';  // the tensor neither begins nor ends at a page
  Write(R"({"before":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
        R"("a":{"dtype":"U8","shape":[16777216],"data_offsets":[1,16777217]},)"
        R"("after":{"dtype":"U8","shape":[2],"data_offsets":[16777217,16777219]}})",
        data);
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_THAT(file, IsOk());
  const TensorView& view = *(*file)->Find("a");
  AnnounceSequentialReading(view);
  const auto sum = [&] {
    int64_t sum = 0;
    for (std::byte byte : view.bytes) sum += std::to_integer<int>(byte);
    return sum;
  };
  const int64_t expected = 'b' + 'e' + (kCount - 2) * 'x';
  EXPECT_EQ(sum(), expected);
  const std::optional<int64_t> before = MappedResidentBytes();
  ReleasePages(view);
  const std::optional<int64_t> after = MappedResidentBytes();
  if (before && after) {
    EXPECT_NEAR(*before - *after, kCount, 4 << 20);
  }
  EXPECT_EQ(sum(), expected);
  ReleasePages(TensorView{});  // of an empty tensor: nothing
  AnnounceSequentialReading(TensorView{});
}

}  // namespace
}  // namespace mechinterp::engine
