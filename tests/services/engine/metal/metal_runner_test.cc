#include "services/engine/metal/metal_runner.h"

#include <gtest/gtest.h>

namespace mechinterp::engine::metal {
namespace {

#ifndef __APPLE__
TEST(StartMetalRunner, ElsewhereThanOnAMacSaysThatThereIsNone) {
  EXPECT_EQ(StartMetalRunner().status().code(), absl::StatusCode::kUnimplemented);
}
#endif

}  // namespace
}  // namespace mechinterp::engine::metal
