#include "tests/services/engine/metal/shader_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/engine/metal/kernel_library.h"

namespace mechinterp::engine::metal {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(ShaderViolations, OurShadersHaveNone) {
  EXPECT_THAT(ShaderViolations(KernelSource(Nf4Lookup::kShuffle)), IsEmpty());
  EXPECT_THAT(ShaderViolations(KernelSource(Nf4Lookup::kThreadgroup)), IsEmpty());
}

struct Planted {
  std::string code;
  std::string violation;
};

class PlantedViolation : public testing::TestWithParam<Planted> {};

// Each in the midst of our source, behind its last line.
TEST_P(PlantedViolation, IsFound) {
  EXPECT_THAT(ShaderViolations(KernelSource() + GetParam().code + "\n"),
              Contains(HasSubstr(GetParam().violation)))
      << GetParam().code;
}

INSTANTIATE_TEST_SUITE_P(
    ShaderViolations, PlantedViolation,
    testing::Values(
        Planted{"// \xc3\xa9", "not ASCII"},                                                  //
        Planted{"inline float f(float x) { return x > 1 ? f(x - 1) : x; }", "recursion: f"},  //
        Planted{"template <int n> float f() { return f<n - 1>(); }", "recursion: f"},         //
        Planted{"float f(float x); float g(float x) { return f(x); } float f(float x) { return g(x); }",
                "recursion: g"},                                                                           //
        Planted{"struct A { float f() const { return f(); } };", "recursion: f"},                          //
        Planted{"struct A { virtual float f(); };", "no virtual"},                                         //
        Planted{"inline void f() { try { } catch (int) { } }", "no try"},                                  //
        Planted{"inline void f() { throw 1; }", "no throw"},                                               //
        Planted{"inline double f(float x) { return x; }", "no double"},                                    //
        Planted{"inline float f(float x) { return std::max(x, 0.0f); }", "no std"},                        //
        Planted{"inline void f() { thread float* p = new float[4]; }", "no new"},                          //
        Planted{"inline void f(thread float* p) { delete p; }", "no delete"},                              //
        Planted{"inline void f() { malloc(4); }", "no malloc"},                                            //
        Planted{"inline void f() { again: goto again; }", "no goto"},                                      //
        Planted{"inline float f() { static float sum = 0; return sum; }", "static variable"},              //
        Planted{"static float table[4];", "static variable"},                                              //
        Planted{"inline float f() { thread_local float sum; return sum; }", "no thread_local"},            //
        Planted{"inline float f() { const auto g = [](float x) { return x; }; return g(1); }", "lambda"},  //
        Planted{"inline float f(float y) { return g([&](float x) { return x + y; }); }", "lambda"},        //
        Planted{"inline void f() { dynamic_cast<int>(0); }", "no dynamic_cast"},                           //
        Planted{"inline void f() { typeid(int); }", "no typeid"},                                          //
        Planted{"inline float f(const float* p) { return p[0]; }", "no address space"},                    //
        Planted{"inline void f(float& sum) { sum = 0; }", "no address space"},                             //
        Planted{"inline float f(uint x) { return *(float*)x; }", "no address space"},                      //
        Planted{"inline void f(vec<float, 4>* p) {}", "no address space"},                                 //
        Planted{"struct A { const uchar* codes; };", "no address space"},                                  //
        Planted{"kernel void f(device float* a [[buffer(0)]], device float* b [[buffer(2)]]) {}",
                "out of order"},
        Planted{"kernel void f(device float* a [[buffer(1)]], device float* b [[buffer(0)]]) {}",
                "out of order"}));

// What looks like a violation and is none.
TEST(ShaderViolations, CommentsAndArithmeticAreNone) {
  EXPECT_THAT(ShaderViolations("// a new, virtual, double goto\n"
                               "/* throw */\n"
                               "#include <metal_stdlib>\n"
                               "inline uint area(uint in, uint out) { return (in * out) + in * 4; }\n"
                               "inline uint both(uint a, uint b) { return a & b; }\n"
                               "inline float twice(device const float* x) { return x[0] * x[1]; }\n"),
              IsEmpty());
}

}  // namespace
}  // namespace mechinterp::engine::metal
