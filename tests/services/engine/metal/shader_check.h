#ifndef TESTS_SERVICES_ENGINE_METAL_SHADER_CHECK_H_
#define TESTS_SERVICES_ENGINE_METAL_SHADER_CHECK_H_

#include <string>
#include <string_view>
#include <vector>

namespace mechinterp::engine::metal {

// What is wrong with a shader that a C++ compiler would accept and Metal 3.0 would
// not, one sentence each: bytes that are not ASCII; words of C++ that Metal lacks
// (exceptions, virtual functions, the heap, double, the standard library, goto, run
// time types); static variables outside constant memory; lambdas (Metal has them only
// from 3.2 on); functions that call themselves, over others too; pointers and
// references without an address space; buffers that are not numbered in order.
//
// Reads words, not grammar: written for our own shaders, and strict rather than exact.
std::vector<std::string> ShaderViolations(std::string_view source);

}  // namespace mechinterp::engine::metal

#endif  // TESTS_SERVICES_ENGINE_METAL_SHADER_CHECK_H_
