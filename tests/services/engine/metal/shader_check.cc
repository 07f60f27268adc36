#include "tests/services/engine/metal/shader_check.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>

namespace mechinterp::engine::metal {
namespace {

using Tokens = std::vector<std::string>;

bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool IsName(const std::string& token) {
  return IsWord(token[0]) && !std::isdigit(static_cast<unsigned char>(token[0]));
}

// Without comments, string literals, and lines that include or name files. Macro
// bodies stay: they are code.
std::string Code(std::string_view source) {
  std::string code;
  for (size_t i = 0; i < source.size();) {
    if (source.substr(i, 2) == "//") {
      i = std::min(source.find('\n', i), source.size());
    } else if (source.substr(i, 2) == "/*") {
      const size_t end = source.find("*/", i + 2);
      i = end == source.npos ? source.size() : end + 2;
    } else if (source[i] == '"') {
      const size_t end = source.find('"', i + 1);
      i = end == source.npos ? source.size() : end + 1;
      code += ' ';
    } else if (source.substr(i, 8) == "#include" || source.substr(i, 5) == "#line") {
      i = std::min(source.find('\n', i), source.size());
    } else {
      code += source[i] == '\\' ? ' ' : source[i];
      ++i;
    }
  }
  return code;
}

// Names and numbers whole, "::", "[[" and "]]" in one, all else by character.
Tokens Tokenize(const std::string& code) {
  Tokens tokens;
  for (size_t i = 0; i < code.size();) {
    if (std::isspace(static_cast<unsigned char>(code[i]))) {
      ++i;
      continue;
    }
    size_t length = 1;
    if (IsWord(code[i])) {
      while (i + length < code.size() &&
             (IsWord(code[i + length]) || (std::isdigit(code[i]) && code[i + length] == '.'))) {
        ++length;
      }
    } else if (const std::string pair = code.substr(i, 2); pair == "::" || pair == "[[" || pair == "]]") {
      length = 2;
    }
    tokens.push_back(code.substr(i, length));
    i += length;
  }
  return tokens;
}

const std::string& At(const Tokens& tokens, size_t i) {
  static const std::string& none = *new std::string(" ");
  return i < tokens.size() ? tokens[i] : none;
}

// Index just past the bracket that closes the one at `open`.
size_t Closing(const Tokens& tokens, size_t open, const char* opening, const char* closing) {
  int depth = 0;
  for (size_t i = open; i < tokens.size(); ++i) {
    if (tokens[i] == opening) ++depth;
    if (tokens[i] == closing && --depth == 0) return i + 1;
  }
  return tokens.size();
}

void CheckAscii(std::string_view source, std::vector<std::string>& violations) {
  const auto bad =
      std::find_if(source.begin(), source.end(), [](char c) { return static_cast<unsigned char>(c) > 126; });
  if (bad != source.end()) {
    violations.push_back("not ASCII in line " + std::to_string(1 + std::count(source.begin(), bad, '\n')));
  }
}

void CheckWords(const Tokens& tokens, std::vector<std::string>& violations) {
  static const auto& missing = *new std::set<std::string>{
      "virtual",  "override", "try",       "catch",        "throw",   "noexcept",     "double",   "std",
      "new",      "delete",   "malloc",    "free",         "goto",    "dynamic_cast", "typeid",   "asm",
      "co_await", "co_yield", "co_return", "thread_local", "long",    "wchar_t",      "volatile", "printf",
      "abort",    "exit",     "concept",   "requires",     "auto_ptr"};
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (missing.count(tokens[i]) > 0) violations.push_back("Metal has no " + tokens[i]);
    if (tokens[i] == "static" && (i == 0 || tokens[i - 1] != "constant")) {
      violations.push_back("a static variable outside constant memory: " + At(tokens, i + 1) + " " +
                           At(tokens, i + 2));
    }
    // A bracket where no operand comes before it is not a subscript.
    if (tokens[i] == "[" && i > 0 && !IsWord(tokens[i - 1][0]) && tokens[i - 1] != ")" &&
        tokens[i - 1] != "]") {
      violations.push_back("a lambda after " + tokens[i - 1]);
    }
    if (tokens[i] == "[" && i > 0 && tokens[i - 1] == "return") violations.push_back("a lambda after return");
  }
}

// What each function calls, by name; overloads are one.
std::map<std::string, std::set<std::string>> CallGraph(const Tokens& tokens) {
  static const auto& statements =
      *new std::set<std::string>{"if", "for", "while", "switch", "return", "sizeof"};
  std::map<std::string, std::set<std::string>> calls;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    if (!IsName(tokens[i]) || statements.count(tokens[i]) > 0 || tokens[i + 1] != "(") continue;
    size_t body = Closing(tokens, i + 1, "(", ")");
    if (At(tokens, body) == "const") ++body;
    if (At(tokens, body) != "{") continue;
    const size_t end = Closing(tokens, body, "{", "}");
    for (size_t j = body; j < end; ++j) {
      // f(...), f<...>(...) and a function's name handed on all count.
      if (IsName(tokens[j])) calls[tokens[i]].insert(tokens[j]);
    }
  }
  return calls;
}

void CheckRecursion(const Tokens& tokens, std::vector<std::string>& violations) {
  const auto calls = CallGraph(tokens);
  for (const auto& [function, unused] : calls) {
    std::set<std::string> reached;
    const std::function<void(const std::string&)> visit = [&](const std::string& caller) {
      const auto found = calls.find(caller);
      if (found == calls.end()) return;
      for (const std::string& callee : found->second) {
        if (reached.insert(callee).second) visit(callee);
      }
    };
    visit(function);
    if (reached.count(function) > 0) violations.push_back("recursion: " + function);
  }
}

// Names of types: the language's, and those that the source declares.
std::set<std::string> TypeNames(const Tokens& tokens) {
  std::set<std::string> types = {"void", "bool",  "char",   "uchar", "short",  "ushort", "int",    "uint",
                                 "half", "float", "bfloat", "vec",   "size_t", "int8_t", "uint8_t"};
  for (const char* scalar : {"char", "uchar", "short", "ushort", "int", "uint", "half", "float", "bfloat"}) {
    for (const char* size : {"2", "3", "4"}) types.insert(std::string(scalar) + size);
  }
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    if ((tokens[i] == "struct" || tokens[i] == "typename") && IsName(tokens[i + 1]))
      types.insert(tokens[i + 1]);
  }
  return types;
}

void CheckAddressSpaces(const Tokens& tokens, std::vector<std::string>& violations) {
  const std::set<std::string> types = TypeNames(tokens);
  for (size_t i = 1; i + 1 < tokens.size(); ++i) {
    if (tokens[i] != "*" && tokens[i] != "&") continue;
    // A declarator's star stands between a type and a name or the end of a cast.
    if (!IsName(tokens[i - 1]) && tokens[i - 1] != ">") continue;
    if (!IsName(tokens[i + 1]) && tokens[i + 1] != ")" && tokens[i + 1] != "(") continue;
    size_t begin = i;
    if (tokens[i - 1] == ">") {  // the type's arguments are not the type
      while (begin > 0 && tokens[begin] != "<") --begin;
    }
    const size_t end = begin;
    while (begin > 0 && IsName(tokens[begin - 1])) --begin;
    bool is_type = false, has_space = false;
    for (size_t j = begin; j < end; ++j) {
      is_type |= types.count(tokens[j]) > 0;
      has_space |= tokens[j] == "device" || tokens[j] == "constant" || tokens[j] == "thread" ||
                   tokens[j] == "threadgroup";
    }
    if (is_type && !has_space) {
      violations.push_back("no address space: " + tokens[i - 1] + tokens[i] + " " + tokens[i + 1]);
    }
  }
}

void CheckBufferNumbers(const Tokens& tokens, std::vector<std::string>& violations) {
  int last = -1;
  for (size_t i = 0; i + 2 < tokens.size(); ++i) {
    if (tokens[i] == "kernel") last = -1;
    if (tokens[i] != "buffer" || tokens[i + 1] != "(") continue;
    const int number = std::atoi(tokens[i + 2].c_str());
    if (number != last + 1) violations.push_back("buffer " + tokens[i + 2] + " out of order");
    last = number;
  }
}

}  // namespace

std::vector<std::string> ShaderViolations(std::string_view source) {
  std::vector<std::string> violations;
  CheckAscii(source, violations);
  const Tokens tokens = Tokenize(Code(source));
  CheckWords(tokens, violations);
  CheckRecursion(tokens, violations);
  CheckAddressSpaces(tokens, violations);
  CheckBufferNumbers(tokens, violations);
  return violations;
}

}  // namespace mechinterp::engine::metal
