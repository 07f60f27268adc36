#include "services/common/suggestion.h"

#include <algorithm>

namespace mechinterp {
namespace {

constexpr size_t kShortestBeginning = 3;

}  // namespace

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> distance(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) distance[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) distance[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = distance[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      distance[i][j] = std::min({distance[i - 1][j] + 1, distance[i][j - 1] + 1, replaced});
      const bool exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (exchanged) distance[i][j] = std::min(distance[i][j], distance[i - 2][j - 2] + 1);
    }
  }
  return distance[a.size()][b.size()];
}

std::string NearestWord(std::string_view written, const std::vector<std::string>& words) {
  std::string nearest;
  int smallest = std::max(1, static_cast<int>(written.size()) / 3) + 1;
  for (const std::string& word : words) {
    // Words far longer than any of ours cost nothing.
    if (written.size() > 2 * word.size()) continue;
    const int distance = EditDistance(written, word);
    if (distance >= smallest) continue;
    smallest = distance;
    nearest = word;
  }
  if (!nearest.empty() || written.size() < kShortestBeginning) return nearest;
  const auto begun = std::find_if(words.begin(), words.end(),
                                  [&](const std::string& word) { return word.rfind(written, 0) == 0; });
  return begun == words.end() ? "" : *begun;
}

std::string DidYouMean(std::string_view written, const std::vector<std::string>& words) {
  const std::string word = NearestWord(written, words);
  return word.empty() ? "" : "; did you mean " + word + "?";
}

}  // namespace mechinterp
