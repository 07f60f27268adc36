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

// Two heads and a neuron group of a model with three layers; L1.H0 leads. The circuit: a head, a neuron
// and a backup, which share an edge with the prompt and the logits.
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
    }
    circuit {
      provenance { model { name: "small" model_hash: "abc" } }
      head_count: 2
      key_value_head_count: 1
      nodes {
        name: "L1.H0"
        role: CIRCUIT_ROLE_MEMBER
        layer: 1
        head: 0
        noising { mean: 0.5 lower: 0.25 upper: 0.75 }
        p_value: 0.0625
      }
      nodes {
        name: "L2.N3"
        role: CIRCUIT_ROLE_MEMBER
        layer: 2
        neuron: 3
        denoising { mean: 0.25 }
      }
      nodes {
        name: "L2.H1"
        role: CIRCUIT_ROLE_BACKUP
        layer: 2
        head: 1
        conditional { mean: 0.125 }
        backs_up: "L1.H0"
      }
      edges {
        sender: "L1.H0"
        receiver: "L2.mlp_in"
        noising { mean: 0.25 }
      }
      edges {
        sender: "embed"
        receiver: "L1.v0"
        noising { mean: 0.375 }
      }
      edges {
        sender: "L2.H1"
        receiver: "final"
        noising { mean: 0.125 }
        conditional_on: "L1.H0"
      }
      edge_curve {
        points {
          share: 1
          count: 9
          faithfulness { mean: 1 }
        }
      }
      minimality {
        name: "L1.H0"
        drop { mean: 0.5 }
      }
      parameter_share: 0.125
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
