#ifndef SERVICES_COMMON_OVERLOADED_H_
#define SERVICES_COMMON_OVERLOADED_H_

namespace mechinterp {

// One function object out of several, for std::visit:
//   std::visit(Overloaded{[](int i) { ... }, [](const std::string& s) { ... }}, variant);
template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;  // clang 14 does not deduce it by itself

}  // namespace mechinterp

#endif  // SERVICES_COMMON_OVERLOADED_H_
