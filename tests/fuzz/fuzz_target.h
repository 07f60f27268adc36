#ifndef TESTS_FUZZ_FUZZ_TARGET_H_
#define TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

// What the targets share. A target is given an input as it could come from outside, hands it
// to the reader that the programs use, and ends the program where a promise is broken.
//
//   ABSTRACT_FUZZ_TARGET(prompts) { ... input, a std::string_view ... }
//
// In a fuzz build that is libFuzzer's entry, and the program is one target. Elsewhere it goes
// into the list of targets, which corpus_test.cc runs over the files in corpus/NAME.

namespace mechinterp::fuzz {

using Target = void (*)(std::string_view input);

// By name; only where it is no fuzz build.
std::vector<std::pair<std::string, Target>>& Targets();
bool AddTarget(std::string name, Target target);

// Ends the program with `what`, as a sanitizer's finding does, unless `holds`.
void Require(bool holds, std::string_view what);
void RequireOk(const absl::Status& status, std::string_view what);

// That a refusal is one: INVALID_ARGUMENT or UNIMPLEMENTED, with a message that names
// `place`, is UTF-8, and is not much longer than the names in it may be.
void RequireRefusal(const absl::Status& status, std::string_view place);

bool IsUtf8(std::string_view text);

// A file of this process's own, in a folder that goes when the process ends.
std::string ScratchPath(std::string_view name);
std::string ScratchFile(std::string_view name, std::string_view content);

// What stands before the first `separator`, and after it; nothing after it where there is none.
std::pair<std::string_view, std::string_view> CutAt(std::string_view input, char separator);

}  // namespace mechinterp::fuzz

#ifdef ABSTRACT_FUZZ
#define ABSTRACT_FUZZ_TARGET(name)                                          \
  static void RunTarget(std::string_view input);                            \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    RunTarget(std::string_view(reinterpret_cast<const char*>(data), size)); \
    return 0;                                                               \
  }                                                                         \
  static void RunTarget(std::string_view input)
#else
#define ABSTRACT_FUZZ_TARGET(name)                                                          \
  static void RunTarget(std::string_view input);                                            \
  [[maybe_unused]] static const bool added = mechinterp::fuzz::AddTarget(#name, RunTarget); \
  static void RunTarget(std::string_view input)
#endif

#endif  // TESTS_FUZZ_FUZZ_TARGET_H_
