// The folder: private, one server's, and after whatever happened without a file that could do harm.

#include "services/model/spill_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#include <sys/mount.h>
#endif

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "services/common/status.h"
#include "tests/services/model/store/store_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::HasSubstr;

class SpillDirectoryTest : public StoreTest {
 protected:
  // So many runs on the disk, whose handles are returned.
  std::vector<std::string> Spill(int count, absl::Duration time_to_live = absl::Hours(1)) {
    const auto store = MakeStore(4 * BytesOf(*StreamRun(40)));
    std::vector<std::string> handles;
    for (int i = 0; i < count; ++i) {
      handles.push_back(*store->Put("someone", StreamRun(40, static_cast<float>(i)), time_to_live));
      now_ += absl::Seconds(1);
    }
    store->FreeMemory(1 << 30);
    return handles;
  }

  static unsigned ModeOf(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777;
  }
  void WriteFile(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
  }
};

TEST_F(SpillDirectoryTest, IsPrivateAndTellsNoHandle) {
  const std::string handle = Spill(1)[0];
  EXPECT_EQ(ModeOf(folder_), 0700u);
  EXPECT_EQ(ModeOf(PathOf(handle)), 0600u);
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_EQ(entry.path().string().find(handle.substr(4)), std::string::npos);
  }
}

TEST_F(SpillDirectoryTest, WantsAFolderOfItsOwn) {
  std::filesystem::create_directory(folder_);
  ASSERT_EQ(::chmod(folder_.c_str(), 0755), 0);
  const auto open = SpillDirectory::Open(folder_, Format());
  EXPECT_EQ(open.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(open.status().message()), HasSubstr("chmod 700"));
  ASSERT_EQ(::chmod(folder_.c_str(), 0700), 0);
  EXPECT_THAT(SpillDirectory::Open(folder_, Format()), IsOk());
  const std::string file = folder_ + "/file";
  WriteFile(file, "");
  EXPECT_FALSE(SpillDirectory::Open(file, Format()).ok());
}

TEST_F(SpillDirectoryTest, IsOneServersAtATime) {
  const auto first = OpenDirectory();
  EXPECT_EQ(SpillDirectory::Open(folder_, Format()).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(SpillDirectoryTest, RunsOutliveTheServer) {
  const std::vector<std::string> handles = Spill(5);
  const auto store = MakeStore(1 << 20);
  EXPECT_EQ(metrics_.runs.Value(), 5);
  EXPECT_TRUE(store->List("").empty());
  const auto listed = store->List("someone");
  ASSERT_EQ(listed.size(), 5u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(listed[i].info->handle, handles[i]);
    EXPECT_EQ(listed[i].run, nullptr);
    const auto entry = store->Get("someone", handles[i]);
    ASSERT_THAT(entry, IsOk());
    EXPECT_TRUE(SameBits(*entry->run, *StreamRun(40, static_cast<float>(i))));
  }
}

TEST_F(SpillDirectoryTest, WhatLiesInMemoryIsWrittenWhenTheServerEnds) {
  std::string handle;
  {
    const auto store = MakeStore(1 << 20);
    handle = *store->Put("", StreamRun(40, 3), absl::Hours(1));
    store->SpillAll();
  }
  const auto entry = MakeStore(1 << 20)->Get("", handle);
  ASSERT_THAT(entry, IsOk());
  EXPECT_TRUE(SameBits(*entry->run, *StreamRun(40, 3)));
}

TEST_F(SpillDirectoryTest, TheLastUseIsRememberedToo) {
  const std::string handle = Spill(1, absl::Minutes(10))[0];
  {
    const auto store = MakeStore(1 << 20);
    now_ += absl::Minutes(9);
    EXPECT_THAT(store->Get("someone", handle), IsOk());
    store->Tidy();  // as its thread does
  }
  now_ += absl::Minutes(9);
  EXPECT_EQ(MakeStore(1 << 20)->List("someone").size(), 1u);
  now_ += absl::Minutes(1);
  EXPECT_TRUE(MakeStore(1 << 20)->List("someone").empty());
  EXPECT_EQ(FileCount(), 0);
}

TEST_F(SpillDirectoryTest, AClockThatWentBackDoesNotLengthenALife) {
  Spill(1, absl::Minutes(10));
  now_ -= absl::Hours(24);
  const auto store = MakeStore(1 << 20);
  now_ += absl::Minutes(10);
  EXPECT_TRUE(store->List("someone").empty());
}

TEST_F(SpillDirectoryTest, OtherModelsRunsGo) {
  Spill(3);
  const auto recovery = OpenDirectory("another hash")->Recover(now_);
  EXPECT_EQ(recovery.of_other_models, 3);
  EXPECT_TRUE(recovery.runs.empty());
  EXPECT_EQ(FileCount(), 0);
}

TEST_F(SpillDirectoryTest, CleansUpItsOwnFilesAndNoOthers) {
  const std::vector<std::string> handles = Spill(3);
  const std::string digits(64, 'a'), other(64, 'b');
  WriteFile(folder_ + "/" + digits + ".partial", "half");
  WriteFile(folder_ + "/" + digits + ".safetensors", "nonsense");
  WriteFile(folder_ + "/" + other + ".safetensors", "");
  WriteFile(folder_ + "/notes.txt", "mine");
  WriteFile(folder_ + "/model.safetensors", "mine");
  // Under another run's name, it is none.
  std::filesystem::copy(PathOf(handles[0]), folder_ + "/" + std::string(64, 'c') + ".safetensors");
  std::filesystem::resize_file(PathOf(handles[1]), 100);
  std::filesystem::create_symlink("/etc/passwd", folder_ + "/" + std::string(64, 'd') + ".safetensors");
  ASSERT_EQ(::mkfifo((folder_ + "/" + std::string(64, 'e') + ".safetensors").c_str(), 0600), 0);
  const auto recovery = OpenDirectory()->Recover(now_);
  EXPECT_EQ(recovery.runs.size(), 2u);
  EXPECT_EQ(recovery.unfinished, 1);
  EXPECT_EQ(recovery.damaged, 6);
  EXPECT_EQ(FileCount(), 4);
  EXPECT_TRUE(std::filesystem::exists("/etc/passwd"));
}

TEST_F(SpillDirectoryTest, DamageFoundAtTheStartIsCounted) {
  const std::vector<std::string> handles = Spill(2);
  std::filesystem::resize_file(PathOf(handles[1]), 100);
  const auto store = MakeStore(1 << 20);
  EXPECT_EQ(metrics_.damaged.Value(), 1);
  EXPECT_EQ(store->Get("someone", handles[1]).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(store->Get("someone", handles[0]), IsOk());
}

// Runs `body` in a process of its own, which ends by it.
template <typename Body>
int InAChild(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

constexpr int kNotPossibleHere = 77;

// A file system of 128 KiB at this folder, which this process alone sees; whether that may be.
bool MountSmallDisk(const std::string& folder) {
#ifdef __linux__
  return ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=128k,mode=0700") == 0;
#else
  return false;
#endif
}

// Fills the disk of a store: the last run is refused, the others stay, nothing half-written is left.
void FillTheDisk(ActivationStore& store, const std::string& reason) {
  std::vector<std::string> handles;
  absl::Status status;
  while (status.ok() && handles.size() < 1000) {
    const auto handle = store.Put("", StreamRun(60, static_cast<float>(handles.size())), absl::Hours(1));
    status = handle.status();
    if (status.ok()) handles.push_back(*handle);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ErrorReason(status), "ACTIVATION_STORE_FULL");
  EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  EXPECT_GT(handles.size(), 5u);
  for (size_t i = 0; i < handles.size(); ++i) {
    const auto entry = store.Get("", handles[i]);
    ASSERT_THAT(entry, IsOk());
    EXPECT_TRUE(SameBits(*entry->run, *StreamRun(60, static_cast<float>(i))));
  }
}

TEST_F(SpillDirectoryTest, AFullDiskRefusesTheNewRunAndKeepsTheOldOnes) {
  const int result = InAChild([&] {
    std::filesystem::create_directory(folder_);
    if (!MountSmallDisk(folder_)) ::_exit(kNotPossibleHere);
    const auto store = MakeStore(10 * BytesOf(*StreamRun(60)));
    FillTheDisk(*store, "No space left on device");
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      EXPECT_EQ(entry.path().extension(), ".safetensors");
    }
  });
  if (result == kNotPossibleHere) GTEST_SKIP() << "file systems cannot be mounted here";
  EXPECT_EQ(result, 0);
}

TEST_F(SpillDirectoryTest, SoDoesALimitOnTheSizeOfFiles) {
  const int result = InAChild([&] {
    const auto store = MakeStore(2 * BytesOf(*StreamRun(60)));
    const std::string first = *store->Put("", StreamRun(60), absl::Hours(1));
    const struct rlimit limit = {1000, 1000};
    ::signal(SIGXFSZ, SIG_IGN);
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(kNotPossibleHere);
    EXPECT_THAT(store->Put("", StreamRun(60), absl::Hours(1)), IsOk());
    const absl::Status status = store->Put("", StreamRun(60), absl::Hours(1)).status();
    EXPECT_EQ(ErrorReason(status), "ACTIVATION_STORE_FULL");
    EXPECT_EQ(FileCount(), 0);
    EXPECT_THAT(store->Get("", first), IsOk());
  });
  if (result == kNotPossibleHere) GTEST_SKIP() << "there is no such limit here";
  EXPECT_EQ(result, 0);
}

// A server is killed while it writes, again and again. What the next one finds is whole.
TEST_F(SpillDirectoryTest, NothingHalfWrittenIsEverServed) {
  constexpr unsigned kRounds = 25;
  int recovered = 0, unfinished = 0;
  for (unsigned round = 0; round < kRounds; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const auto store = MakeStore(100'000);
      for (unsigned seed = 0;; ++seed) {
        const char beginning = 1;
        if (::write(pipe_ends[1], &beginning, 1) != 1) ::_exit(1);
        if (!store->Put("", RandomRun(seed), absl::Hours(1)).ok()) ::pause();
      }
    }
    ::close(pipe_ends[1]);
    // As many runs as the round says, and a moment of no certain length.
    char beginning;
    for (unsigned i = 0; i < 5 + round; ++i) ASSERT_EQ(::read(pipe_ends[0], &beginning, 1), 1);
    for (unsigned i = 0; i < 20 * round; ++i) std::this_thread::yield();
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(pipe_ends[0]);

    const auto directory = OpenDirectory();
    const SpillDirectory::Recovery recovery = directory->Recover(now_);
    EXPECT_EQ(recovery.damaged, 0);
    unfinished += recovery.unfinished;
    for (const SpillDirectory::FoundRun& found : recovery.runs) {
      const auto run = directory->Read(found.info);
      ASSERT_THAT(run, IsOk());
      bool known = false;
      for (unsigned seed = run->prompt.ids[0]; seed < 3000 && !known; seed += 1000) {
        known = SameBits(*run, *RandomRun(seed));
      }
      EXPECT_TRUE(known);
      EXPECT_THAT(directory->Remove(found.info.handle), IsOk());
      ++recovered;
    }
    EXPECT_EQ(FileCount(), 0);
  }
  EXPECT_GT(recovered, 0);
  RecordProperty("unfinished", unfinished);
}

}  // namespace
}  // namespace mechinterp
