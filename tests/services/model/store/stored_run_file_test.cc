// A file is read back bit for bit, or not at all.

#include "services/model/stored_run_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "absl/strings/str_replace.h"
#include "services/engine/checkpoint/content_hash.h"
#include "tests/services/model/store/store_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::HasSubstr;

ByteSource SourceOf(const std::string& file) {
  return {file.size(), [&file](uint64_t offset, absl::Span<std::byte> bytes) {
            if (offset + bytes.size() > file.size()) return absl::DataLossError("past its end");
            std::memcpy(bytes.data(), file.data() + offset, bytes.size());
            return absl::OkStatus();
          }};
}

class StoredRunFile : public testing::Test {
 protected:
  StoredRunInfo InfoOf(const engine::RecordedRun& run) {
    StoredRunInfo info = DescribeRun(run);
    info.handle = "act-0123";
    info.owner = "someone\xff\n\"";
    info.create_time = absl::FromUnixNanos(123456789012345);
    info.time_to_live = absl::Seconds(77);
    return info;
  }
  std::string Write(const engine::RecordedRun& run) {
    uint64_t file_bytes = 0;
    const auto prologue = format_.Prologue(InfoOf(run), run, file_bytes);
    EXPECT_THAT(prologue, IsOk());
    std::string file;
    EXPECT_THAT(StoredRunFormat::Write(*prologue, run,
                                       [&](absl::Span<const std::byte> bytes) {
                                         file.append(reinterpret_cast<const char*>(bytes.data()),
                                                     bytes.size());
                                         return absl::OkStatus();
                                       }),
                IsOk());
    EXPECT_EQ(file.size(), file_bytes);
    return file;
  }
  // The file with something else in its header, and sums that fit it: as somebody would write it
  // who means harm.
  std::string Forge(const std::string& file, const std::string& from, const std::string& to) {
    uint64_t length;
    std::memcpy(&length, file.data(), sizeof(length));
    std::string header = file.substr(8, length);
    const std::string data = file.substr(8 + length, file.size() - 8 - length - 128);
    EXPECT_GT(absl::StrReplaceAll({{from, to}}, &header), 0) << from;
    length = header.size();
    std::string forged(reinterpret_cast<const char*>(&length), sizeof(length));
    forged += header;
    const std::string header_sum = Sum(forged);
    forged += data + header_sum;
    return forged + Sum(forged);
  }
  static std::string Sum(const std::string& text) {
    engine::Sha256 sum;
    sum.Add(text);
    return sum.Hex();
  }

  StoredRunFormat format_{SmallConfig(), "hash"};
};

TEST_F(StoredRunFile, HoldsARunBitForBit) {
  for (unsigned seed = 0; seed < 100; ++seed) {
    const auto run = RandomRun(seed);
    const std::string file = Write(*run);
    const auto info = format_.ReadInfo(SourceOf(file));
    ASSERT_THAT(info, IsOk());
    const StoredRunInfo expected = InfoOf(*run);
    EXPECT_EQ(info->handle, expected.handle);
    EXPECT_EQ(info->owner, expected.owner);
    EXPECT_EQ(info->create_time, expected.create_time);
    EXPECT_EQ(info->time_to_live, expected.time_to_live);
    EXPECT_EQ(info->activations, expected.activations);
    const auto read = format_.ReadRun(SourceOf(file), expected);
    ASSERT_THAT(read, IsOk());
    EXPECT_TRUE(SameBits(*read, *run)) << seed;
  }
}

// Any reader of safetensors can look into it.
TEST_F(StoredRunFile, IsSafetensors) {
  const std::string path = testing::TempDir() + "/abstract-stored-run.safetensors";
  const auto run = StreamRun(3, 2.5);
  const std::string file = Write(*run);
  std::FILE* out = std::fopen(path.c_str(), "wb");
  std::fwrite(file.data(), 1, file.size(), out);
  std::fclose(out);
  const auto opened = engine::SafetensorsFile::Open(path);
  ASSERT_THAT(opened, IsOk());
  const engine::TensorView* view = (*opened)->Find("hook_embed");
  ASSERT_NE(view, nullptr);
  EXPECT_EQ(view->shape, (std::vector<int64_t>{3, 1, 16}));
  EXPECT_EQ(engine::ToHostTensor(*view)->values, std::vector<float>(48, 2.5));
  EXPECT_EQ((*opened)->metadata().at("prompt_token_ids"), "1 1 1");
  EXPECT_EQ((*opened)->metadata().at("positions"), "0-2");
  ::remove(path.c_str());
}

TEST_F(StoredRunFile, NoByteCanChange) {
  const auto run = RandomRun(3);
  const StoredRunInfo info = InfoOf(*run);
  std::string file = Write(*run);
  for (size_t offset = 0; offset < file.size(); ++offset) {
    for (const unsigned char flip : {0x01, 0x80}) {
      file[offset] = static_cast<char>(file[offset] ^ flip);
      EXPECT_EQ(format_.ReadRun(SourceOf(file), info).status().code(), absl::StatusCode::kDataLoss) << offset;
      file[offset] = static_cast<char>(file[offset] ^ flip);
    }
  }
  EXPECT_THAT(format_.ReadRun(SourceOf(file), info), IsOk());
}

TEST_F(StoredRunFile, NorItsLength) {
  const auto run = RandomRun(4);
  const StoredRunInfo info = InfoOf(*run);
  const std::string file = Write(*run);
  for (size_t length = 0; length < file.size(); ++length) {
    EXPECT_EQ(format_.ReadRun(SourceOf(file.substr(0, length)), info).status().code(),
              absl::StatusCode::kDataLoss)
        << length;
  }
  EXPECT_EQ(format_.ReadRun(SourceOf(file + "x"), info).status().code(), absl::StatusCode::kDataLoss);
}

// Of the header alone: what a list after a restart goes by.
TEST_F(StoredRunFile, ADamagedHeaderIsNoticedWithoutTheRest) {
  const std::string file = Write(*RandomRun(5));
  uint64_t length;
  std::memcpy(&length, file.data(), sizeof(length));
  for (size_t offset = 0; offset < 8 + length; ++offset) {
    std::string damaged = file;
    damaged[offset] = static_cast<char>(damaged[offset] ^ 4);
    EXPECT_EQ(format_.ReadInfo(SourceOf(damaged)).status().code(), absl::StatusCode::kDataLoss) << offset;
  }
}

TEST_F(StoredRunFile, OfAnotherModelIsToldApart) {
  const auto run = StreamRun(2);
  const std::string file = Write(*run);
  const StoredRunFormat other(SmallConfig(), "another hash");
  EXPECT_EQ(other.ReadInfo(SourceOf(file)).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(other.ReadRun(SourceOf(file), InfoOf(*run)).ok());
}

TEST_F(StoredRunFile, OfAnotherRunIsNotServed) {
  const std::string file = Write(*StreamRun(2, 1));
  StoredRunInfo info = InfoOf(*StreamRun(2, 1));
  info.handle = "act-4567";
  EXPECT_EQ(format_.ReadRun(SourceOf(file), info).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(format_.ReadRun(SourceOf(file), InfoOf(*StreamRun(3))).status().code(),
            absl::StatusCode::kDataLoss);
}

struct Forgery {
  const char* from;
  const char* to;
  const char* what;
};

TEST_F(StoredRunFile, WhatTheModelDoesNotHaveGetsNotThrough) {
  const auto run = StreamRun(3);
  const std::string file = Write(*run);
  EXPECT_THAT(format_.ReadInfo(SourceOf(Forge(file, "1 1 1", "1 1 2"))), IsOk());  // the forger can forge
  const Forgery kForgeries[] = {
      {"\"shape\":[3,1,16]", "\"shape\":[3,16,1]", "shape"},
      {"\"shape\":[3,1,16]", "\"shape\":[48]", "shape"},
      {"\"shape\":[3,1,16]", "\"shape\":[3,1,9223372036854775807]", "shape"},
      {"\"shape\":[3,1,16]", "\"shape\":[-3,1,16]", "shape"},
      {"[0,192]", "[0,18446744073709551615]", "shape"},
      {"[0,192]", "[64,192]", "fill"},
      {"[0,192]", "[0,188]", "shape"},
      {"\"F32\"", "\"I32\"", "shape"},
      {"\"F32\"", "\"X32\"", "X32"},
      {"hook_embed", "blocks.7.hook_resid_pre", "no hook point"},
      {"hook_embed", "logits", "shape"},
      {"\"0-2\"", "\"0-1\"", "shape"},
      {"\"0-2\"", "\"1-3\"", "positions"},
      {"\"0-2\"", "\"0-2147483647\"", "positions"},
      {"\"0-2\"", "\"2-0\"", "positions"},
      {"\"0-2\"", "\"0 0 1\"", "positions"},
      {"\"0-2\"", "\"-1-1\"", "positions"},
      {"\"0-2\"", "\"\"", "positions"},
      {"\"positions\"", "\"position\"", "lacks positions"},
      {"\"positions\":", "\"positions hook_embed\":\"0\",\"positions\":", "shape"},
      {"1 1 1", "1 1 1000", "tokens"},
      {"1 1 1", "1 1 -1", "tokens"},
      {"1 1 1", "1 1 99999999999999999999", "tokens"},
      {"1 1 1", "1 1", "positions"},
      {"\"handle\"", "\"h\"", "handle"},
      {"123456789012345", "soon", "create_time"},
      {"sha256", "sha512", "no hook point"},
      {"{\"__metadata__\"", "[{\"__metadata__\"", "header"},
  };
  for (const auto& [from, to, what] : kForgeries) {
    const absl::Status status = format_.ReadInfo(SourceOf(Forge(file, from, to))).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << from << " -> " << to;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what)) << from << " -> " << to;
  }
}

TEST_F(StoredRunFile, AHeaderTooLongForItsFileTakesNoMemory) {
  std::string file = Write(*StreamRun(3));
  for (const uint64_t length : {uint64_t{1} << 20, uint64_t{17} << 20, ~uint64_t{0}, ~uint64_t{0} - 136}) {
    std::memcpy(file.data(), &length, sizeof(length));
    EXPECT_EQ(format_.ReadInfo(SourceOf(file)).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(StoredRunFile, AnErrorOfTheSystemIsNotTakenForDamage) {
  const std::string file = Write(*StreamRun(3));
  const ByteSource failing{file.size(), [](uint64_t, absl::Span<std::byte>) {
                             return absl::UnavailableError("Input/output error");
                           }};
  EXPECT_EQ(format_.ReadInfo(failing).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(StoredRunFile, TheSinksErrorEndsTheWriting) {
  const auto run = StreamRun(3);
  uint64_t file_bytes = 0;
  const std::string prologue = *format_.Prologue(InfoOf(*run), *run, file_bytes);
  for (int successes = 0; successes < 4; ++successes) {
    int left = successes;
    const absl::Status status = StoredRunFormat::Write(prologue, *run, [&](absl::Span<const std::byte>) {
      return left-- > 0 ? absl::OkStatus() : absl::ResourceExhaustedError("No space left on device");
    });
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(left, -1);
  }
}

}  // namespace
}  // namespace mechinterp
