#include "services/common/paging.h"

#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"

namespace mechinterp {
namespace {

using google::protobuf::BytesValue;

BytesValue Entry(size_t bytes) {
  BytesValue entry;
  entry.set_value(std::string(bytes, 'x'));
  return entry;
}

TEST(Page, EndsAtTheEntriesAskedFor) {
  Violations violations;
  Page page(2, violations.At("page_size"));
  EXPECT_TRUE(page.Take(Entry(1)));
  EXPECT_TRUE(page.Take(Entry(1)));
  EXPECT_FALSE(page.Take(Entry(1)));
  EXPECT_TRUE(violations.empty());
}

TEST(Page, EndsAtOneMebibyteAndHasAnEntryAtLeast) {
  Violations violations;
  Page page(0, violations.At("page_size"));
  EXPECT_TRUE(page.Take(Entry(3 << 20)));
  EXPECT_FALSE(page.Take(Entry(0)));
  Page small(0, violations.At("page_size"));
  int entries = 0;
  while (small.Take(Entry(1000))) ++entries;
  EXPECT_GT(entries, 1000);
  EXPECT_LE(entries * 1000, 1 << 20);
}

TEST(Page, RefusesANegativeSize) {
  Violations violations;
  Page page(-1, violations.At("page_size"));
  ASSERT_EQ(violations.list().size(), 1u);
  EXPECT_EQ(violations.list()[0].field, "page_size");
}

TEST(PageToken, BringsThePositionBack) {
  Violations violations;
  for (const PagePosition& position :
       {PagePosition{0, ""}, PagePosition{-5, "two words"}, PagePosition{int64_t{1} << 62, "a.b-c_ü"}}) {
    const std::string token = PageToken(position);
    // It stands in addresses as it is.
    EXPECT_EQ(token.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
              std::string::npos);
    const auto read = ReadPageToken(token, violations.At("page_token"));
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->order, position.order);
    EXPECT_EQ(read->id, position.id);
  }
  EXPECT_FALSE(ReadPageToken("", violations.At("page_token")).has_value());
  EXPECT_TRUE(violations.empty());
}

TEST(PageToken, RefusesOtherTexts) {
  for (const char* text : {"x", "!!!", "AAAA", "bm8tbnVtYmVyIGE"}) {  // the last is "no-number a"
    Violations violations;
    EXPECT_FALSE(ReadPageToken(text, violations.At("page_token")).has_value()) << text;
    EXPECT_EQ(violations.count(), 1u) << text;
  }
}

}  // namespace
}  // namespace mechinterp
