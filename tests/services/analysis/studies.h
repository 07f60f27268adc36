#ifndef TESTS_SERVICES_ANALYSIS_STUDIES_H_
#define TESTS_SERVICES_ANALYSIS_STUDIES_H_

#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

// A message from its text form; fails the test when it does not parse.
template <typename Message>
Message FromText(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

// The synthetic study that the dashboard's tests share.
inline std::string ResultsFolder() { return absl::StrCat(ABSTRACT_SOURCE_DIR, "/tests/testdata/results"); }

// Two heads and a neuron group of a model with three layers; L1.H0 leads.
inline v1::Study SmallStudy() {
  return FromText<v1::Study>(R"pb(
    baseline {
      provenance { model { name: "small" model_hash: "abc" } }
      harmful { success_count: 1 total_count: 2 rate: 0.5 lower: 0.1 upper: 0.9 }
      harmless { success_count: 0 total_count: 2 rate: 0 lower: 0 upper: 0.7 }
    }
    patching {
      provenance { model { name: "small" model_hash: "abc" } }
      layer_count: 3
      head_count: 2
      neuron_count: 8
      effects {
        component { kind: COMPONENT_KIND_HEAD layer: 1 head: 0 name: "L1.H0" }
        direction: PATCH_DIRECTION_DENOISING
        effect { mean: 0.5 }
      }
      effects {
        component { kind: COMPONENT_KIND_HEAD layer: 2 head: 1 name: "L2.H1" }
        direction: PATCH_DIRECTION_DENOISING
        effect { mean: 0.25 }
      }
      effects {
        component { kind: COMPONENT_KIND_NEURON_GROUP layer: 2 neuron_begin: 0 neuron_end: 4 name: "L2.N0-3" }
        direction: PATCH_DIRECTION_NOISING
        effect { mean: 0.375 }
      }
    })pb");
}

// A folder of its own for each test, removed at its end.
class ScratchFolder {
 public:
  ScratchFolder() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ =
        std::filesystem::path(::testing::TempDir()) / absl::StrCat("abstract-", getpid(), "-", test->name());
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }

  std::string File(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace mechinterp

#endif  // TESTS_SERVICES_ANALYSIS_STUDIES_H_
