#include "services/analysis/dashboard_login.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace mechinterp {
namespace {

constexpr char kCookie[] = "abstract_token=";

std::string Decode(absl::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_escape = text[i] == '%' && i + 2 < text.size() && absl::ascii_isxdigit(text[i + 1]) &&
                           absl::ascii_isxdigit(text[i + 2]);
    if (is_escape) {
      decoded += absl::HexStringToBytes(text.substr(i + 1, 2));
      i += 2;
    } else {
      decoded += text[i] == '+' ? ' ' : text[i];
    }
  }
  return decoded;
}

// Of the first part that begins with `name`.
std::string ValueIn(const std::string& text, char separator, absl::string_view name) {
  for (absl::string_view part : absl::StrSplit(text, separator)) {
    part = absl::StripAsciiWhitespace(part);
    if (absl::ConsumePrefix(&part, name)) return std::string(part);
  }
  return "";
}

}  // namespace

std::string TokenOfForm(const std::string& body) {
  return std::string(absl::StripAsciiWhitespace(Decode(ValueIn(body, '&', "token="))));
}

std::string TokenOfCookies(const std::string& cookies) { return ValueIn(cookies, ';', kCookie); }

std::string TokenCookie(const std::string& token) {
  return absl::StrCat(kCookie, token, "; HttpOnly; SameSite=Strict; Path=/");
}

}  // namespace mechinterp
