#ifndef SERVICES_ANALYSIS_DASHBOARD_LOGIN_H_
#define SERVICES_ANALYSIS_DASHBOARD_LOGIN_H_

#include <string>

namespace mechinterp {

// How a browser carries a token. All are pure.

// Of a form's application/x-www-form-urlencoded body; empty where there is none.
std::string TokenOfForm(const std::string& body);
// Of a Cookie header.
std::string TokenOfCookies(const std::string& cookies);
// A Set-Cookie header's value for a token of our own making: letters that cookies may have. Gone with the
// browser's session, sent to no other site's requests, hidden from scripts.
std::string TokenCookie(const std::string& token);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_DASHBOARD_LOGIN_H_
