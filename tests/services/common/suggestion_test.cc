#include "services/common/suggestion.h"

#include "gtest/gtest.h"

namespace mechinterp {
namespace {

TEST(EditDistance, CountsInsertionsDeletionsReplacementsAndExchanges) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);  // the textbook's pair
  EXPECT_EQ(EditDistance("modle", "model"), 1);
  EXPECT_EQ(EditDistance("ca", "abc"), 3);  // optimal string alignment; 2 without its restriction
}

TEST(NearestWord, FindsWhatWasMeant) {
  const std::vector<std::string> words = {"generate", "tokenize", "model", "patch", "patching"};
  EXPECT_EQ(NearestWord("genrate", words), "generate");
  EXPECT_EQ(NearestWord("modle", words), "model");
  EXPECT_EQ(NearestWord("pathc", words), "patch");
  EXPECT_EQ(NearestWord("patchin", words), "patching");
  EXPECT_EQ(NearestWord("gen", words), "generate");  // its beginning
}

TEST(NearestWord, FindsNothingFarAway) {
  const std::vector<std::string> words = {"generate", "model"};
  EXPECT_EQ(NearestWord("frobnicate", words), "");
  EXPECT_EQ(NearestWord("me", words), "");
  EXPECT_EQ(NearestWord("", words), "");
  EXPECT_EQ(NearestWord(std::string(1 << 20, 'g'), words), "");
}

TEST(DidYouMean, IsTheEndOfASentence) {
  EXPECT_EQ(DidYouMean("modle", {"model"}), "; did you mean model?");
  EXPECT_EQ(DidYouMean("frobnicate", {"model"}), "");
}

}  // namespace
}  // namespace mechinterp
