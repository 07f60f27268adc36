#include "services/common/trace_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

namespace mechinterp {
namespace {

using testing::MatchesRegex;

// The examples of W3C's text.
TEST(ParseTraceparent, TakesWhatTheStandardAllows) {
  const auto context = ParseTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  ASSERT_TRUE(context);
  EXPECT_EQ(context->trace_id, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(context->span_id, "b7ad6b7169203331");
  EXPECT_TRUE(context->is_sampled);
  EXPECT_EQ(context->ToTraceparent(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  EXPECT_FALSE(
      ParseTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").value().is_sampled);
  EXPECT_FALSE(
      ParseTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe").value().is_sampled);
  // A version to come may have more behind.
  EXPECT_TRUE(ParseTraceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  EXPECT_TRUE(ParseTraceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes"));
}

TEST(ParseTraceparent, TakesNothingElse) {
  for (const char* text : {
           "", "00", "nonsense",
           "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",       // a version that is none
           "00-00000000000000000000000000000000-b7ad6b7169203331-01",       // ids that are none
           "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",       //
           "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",       // upper case
           "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",        // too short
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",        //
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",        //
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",       // no hex
           "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",       //
           "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",       // other signs between
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",  // more than version 00 has
           "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",   //
       }) {
    EXPECT_FALSE(ParseTraceparent(text)) << text;
  }
}

TEST(NewTrace, IsOneThatTheStandardAllowsAndNoOther) {
  std::set<std::string> traces, spans;
  for (int i = 0; i < 1000; ++i) {
    const TraceContext context = NewTrace();
    ASSERT_TRUE(ParseTraceparent(context.ToTraceparent()));
    EXPECT_THAT(context.ToTraceparent(), MatchesRegex("00-[0-9a-f]{32}-[0-9a-f]{16}-01"));
    traces.insert(context.trace_id);
    spans.insert(context.span_id);
  }
  EXPECT_EQ(traces.size(), 1000);
  EXPECT_EQ(spans.size(), 1000);
}

}  // namespace
}  // namespace mechinterp
