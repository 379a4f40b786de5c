// AVX2 with FMA and F16C: x86-64 from 2013 on.
#include "kernels_common.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace flashhead {
namespace {
namespace avx2 {

#include "nibbles_x86.h"

struct Simd : Nibbles {
  static constexpr const char* kName = "avx2";
  static constexpr int64_t kCodeBytes = 32, kFloats = 8;
  using Codes = __m256i;
  using Ints = __m256i;
  using Floats = __m256;

  static Codes LoadCodes(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  // Only half a vector can be left: a block of int4.
  static Codes LoadCodesPartial(const uint8_t* from, int64_t) {
    return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  template <int kBits>
  static Codes Plane(int j, Codes codes) {
    const Codes moved = _mm256_srli_epi16(codes, j * kBits);
    return j == 16 / kBits - 1 ? moved : _mm256_and_si256(moved, _mm256_set1_epi16((1 << kBits) - 1));
  }
  static Ints LoadInts(const int32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static Ints MultiplyAdd(Ints sum, Codes codes, const int16_t* plane) {
    const auto state = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(plane));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(codes, state));
  }
  static Ints AddNibbles(Ints sum, Codes codes, const int8_t* low, const int8_t* high) {
    const auto load = [](const int8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); };
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), load(low));
    const __m256i last = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 4), mask), load(high));
    const __m256i pairs = _mm256_add_epi16(first, last);  // at most 4 * 15 * 127, which is less than 2^15
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static Floats Multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats ToFloats(Ints ints) { return _mm256_cvtepi32_ps(ints); }
  static Floats Zero() { return _mm256_setzero_ps(); }
  static Floats Add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static uint32_t AtLeast(Floats a, float limit) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, _mm256_set1_ps(limit), _CMP_GE_OQ)));
  }
  static float Sum(Floats a) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
  }
  template <int64_t kBlocks>
  static Floats Scales(const uint16_t* scales) {
    const __m256 low = BroadcastHalf(scales[0]);
    return kBlocks == 1 ? low : _mm256_blend_ps(low, BroadcastHalf(scales[kBlocks - 1]), 0xf0);
  }
  static Floats Broadcast(float value) { return _mm256_set1_ps(value); }
  static Floats BroadcastHalf(uint16_t value) { return _mm256_cvtph_ps(_mm_set1_epi16(static_cast<int16_t>(value))); }
  static void Store(float* to, Floats a) { _mm256_storeu_ps(to, a); }
  static Floats LoadFloats(const float* from) { return _mm256_loadu_ps(from); }
  static Floats LoadFloats(const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Floats LoadFloats(const int8_t* from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  }
  static Floats LoadFloats(const BFloat16* from) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
};

#include "products_avx2.h"
#include "products_impl.h"
#include "select_impl.h"
#include "kernels_impl.h"

}  // namespace avx2
}  // namespace

const Kernels* Avx2Kernels() {
  const bool usable = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  return usable ? &avx2::kTable : nullptr;
}

}  // namespace flashhead

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else
namespace flashhead {
const Kernels* Avx2Kernels() { return nullptr; }
}  // namespace flashhead
#endif
