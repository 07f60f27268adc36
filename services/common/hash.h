#ifndef SERVICES_COMMON_HASH_H_
#define SERVICES_COMMON_HASH_H_

#include <cstdint>
#include <string_view>

namespace mechinterp {

// Hashes and random numbers that are the same on every platform, unlike std::hash and
// the standard library's distributions. Names and draws, not seals.

inline constexpr uint64_t kFnv1aBasis = 0xcbf29ce484222325u;

// Fowler, Noll and Vo's 64-bit hash, variant 1a. With the hash of what stands before as
// `basis` it goes on from there.
constexpr uint64_t Fnv1a(std::string_view text, uint64_t basis = kFnv1aBasis) {
  for (const char c : text) basis = (basis ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return basis;
}

// SplitMix64 (Steele, Lea & Flood 2014). A plain value; not thread-safe.
class SplitMix64 {
 public:
  constexpr explicit SplitMix64(uint64_t seed) : state_(seed) {}

  constexpr uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

}  // namespace mechinterp

#endif  // SERVICES_COMMON_HASH_H_
