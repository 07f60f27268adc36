#ifndef SERVICES_COMMON_SUGGESTION_H_
#define SERVICES_COMMON_SUGGESTION_H_

#include <string>
#include <string_view>
#include <vector>

namespace mechinterp {

// How many letters must be inserted, deleted, replaced or exchanged with a neighbour to
// turn one word into the other (optimal string alignment).
int EditDistance(std::string_view a, std::string_view b);

// The word that somebody may have meant who wrote `written`: the nearest one if at most a
// third of its letters (one in short words) are wrong, or one that `written` begins. Empty if none
// is. Of equally near words the first.
std::string NearestWord(std::string_view written, const std::vector<std::string>& words);

// "; did you mean WORD?", or nothing where there is no such word.
std::string DidYouMean(std::string_view written, const std::vector<std::string>& words);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_SUGGESTION_H_
