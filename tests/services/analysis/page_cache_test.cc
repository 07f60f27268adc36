#include "services/analysis/page_cache.h"

#include <zlib.h>

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/analysis/gzip.h"
#include "tests/services/analysis/studies.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;

std::string Gunzip(const std::string& compressed, size_t size) {
  std::string text(size + 1, '\0');
  z_stream stream = {};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data()));
  stream.avail_in = static_cast<uInt>(compressed.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  text.resize(stream.total_out);
  inflateEnd(&stream);
  return text;
}

TEST(Gzip, IsWhatZlibReads) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i * 7919 % 1000);
  const auto compressed = Gzip(text);
  ASSERT_THAT(compressed, IsOk());
  EXPECT_LT(compressed->size(), text.size());
  EXPECT_EQ(Gunzip(*compressed, text.size()), text);
  EXPECT_EQ(Gunzip(*Gzip(""), 0), "");
}

TEST(AcceptsGzip, ReadsCodingsAndWeights) {
  for (const char* header : {"gzip", "br, gzip", "deflate;q=0.5 , GZIP;q=0.1", "gzip;q=1.0,br"}) {
    EXPECT_TRUE(AcceptsGzip(header)) << header;
  }
  for (const char* header : {"", "br", "gzip;q=0", "gzip; q=0.000", "xgzip", "br;q=1.0;gzip"}) {
    EXPECT_FALSE(AcceptsGzip(header)) << header;
  }
}

class PageCacheTest : public ::testing::Test {
 protected:
  PageCacheTest() {
    auto store = RunStore::Open(folder_.File("runs.sqlite"));
    EXPECT_THAT(store, IsOk());
    store_ = *std::move(store);
  }

  // Remembers what is made, a page of 100 bytes each.
  PageCache CacheOf(size_t max_bytes) {
    return PageCache(store_.get(), max_bytes,
                     [this](v1::GetRunResponse run) -> absl::StatusOr<DashboardPage> {
                       made_.push_back(run.description().run_id());
                       return DashboardPage{std::string(60, 'h'), std::string(40, 'z')};
                     });
  }

  ScratchFolder folder_;
  std::unique_ptr<RunStore> store_;
  std::vector<std::string> made_;
};

TEST_F(PageCacheTest, MakesAPageOnce) {
  ASSERT_THAT(store_->Import("a", SmallStudy()), IsOk());
  PageCache pages = CacheOf(1000);
  const auto first = pages.Get("a");
  ASSERT_THAT(first, IsOk());
  const auto second = pages.Get("a");
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(*first, *second);  // the very same
  EXPECT_THAT(made_, ElementsAre("a"));
}

TEST_F(PageCacheTest, MakesItAgainWhenTheRunHasChanged) {
  ASSERT_THAT(store_->Import("a", SmallStudy()), IsOk());
  PageCache pages = CacheOf(1000);
  ASSERT_THAT(pages.Get("a"), IsOk());
  ASSERT_THAT(store_->Import("a", FromText<v1::Study>("compare {}")), IsOk());
  ASSERT_THAT(pages.Get("a"), IsOk());
  EXPECT_THAT(made_, ElementsAre("a", "a"));
  ASSERT_THAT(store_->Delete("a"), IsOk());
  EXPECT_EQ(pages.Get("a").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(PageCacheTest, KeepsWhatWasAskedForLast) {
  for (const char* id : {"a", "b", "c"}) ASSERT_THAT(store_->Import(id, SmallStudy()), IsOk());
  PageCache pages = CacheOf(250);  // two pages
  for (const char* id : {"a", "b", "a", "c", "a", "b"}) ASSERT_THAT(pages.Get(id), IsOk());
  EXPECT_THAT(made_, ElementsAre("a", "b", "c", "b"));
  PageCache small = CacheOf(10);  // less than a page: that is kept all the same
  made_.clear();
  for (const char* id : {"a", "a", "b", "a"}) ASSERT_THAT(small.Get(id), IsOk());
  EXPECT_THAT(made_, ElementsAre("a", "b", "a"));
}

TEST_F(PageCacheTest, MakesPagesOfTheDashboard) {
  ASSERT_THAT(store_->Import("a", SmallStudy()), IsOk());
  PageCache pages(store_.get());
  const auto page = pages.Get("a");
  ASSERT_THAT(page, IsOk());
  EXPECT_THAT((*page)->html, ::testing::StartsWith("<!doctype html>"));
  EXPECT_EQ(Gunzip((*page)->gzip, (*page)->html.size()), (*page)->html);
}

}  // namespace
}  // namespace mechinterp
