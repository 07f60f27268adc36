#ifndef CLIENTS_LIB_TEXT_STYLE_H_
#define CLIENTS_LIB_TEXT_STYLE_H_

#include <string>
#include <string_view>

namespace mechinterp {

// Colours for terminals. Pure functions but for ColoursAreWanted, which reads the
// environment.

enum class TextStyle { kBold, kRed, kGreen, kYellow };

// On a terminal, unless NO_COLOR is set to anything or TERM is "dumb".
bool ColoursAreWanted(bool is_terminal);

std::string Styled(std::string_view text, TextStyle style);

// A command's tables and verdicts with colours: headings (lines above a line of dashes)
// bold, PASSED and MET green, FAILED, NOT MET and PROBLEM red.
std::string WithColours(std::string_view text);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_TEXT_STYLE_H_
