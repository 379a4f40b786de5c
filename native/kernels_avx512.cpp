// AVX-512 with VNNI: Ice Lake, Zen 4 and later.
#include "kernels_common.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")
#endif

namespace flashhead {
namespace {
namespace avx512 {

#include "nibbles_x86.h"

struct Simd : Nibbles {
  static constexpr const char* kName = "avx512-vnni";
  static constexpr int64_t kCodeBytes = 64, kFloats = 16;
  using Codes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;

  static Codes LoadCodes(const uint8_t* from) { return _mm512_loadu_si512(from); }
  static Codes LoadCodesPartial(const uint8_t* from, int64_t bytes) {
    return _mm512_maskz_loadu_epi8((uint64_t{1} << bytes) - 1, from);
  }
  template <int kBits>
  static Codes Plane(int j, Codes codes) {
    const Codes moved = _mm512_srli_epi16(codes, static_cast<unsigned>(j * kBits));
    return j == 16 / kBits - 1 ? moved : _mm512_and_si512(moved, _mm512_set1_epi16((1 << kBits) - 1));
  }
  static Ints LoadInts(const int32_t* from) { return _mm512_loadu_si512(from); }
  static Ints MultiplyAdd(Ints sum, Codes codes, const int16_t* plane) {
    return _mm512_dpwssd_epi32(sum, codes, _mm512_loadu_si512(plane));
  }
  static Ints AddNibbles(Ints sum, Codes codes, const int8_t* low, const int8_t* high) {
    const __m512i mask = _mm512_set1_epi8(15);
    sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(codes, mask), _mm512_loadu_si512(low));
    return _mm512_dpbusd_epi32(sum, _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask), _mm512_loadu_si512(high));
  }
  static Floats Multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats ToFloats(Ints ints) { return _mm512_cvtepi32_ps(ints); }
  static Floats Zero() { return _mm512_setzero_ps(); }
  static Floats Add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static uint32_t AtLeast(Floats a, float limit) { return _mm512_cmp_ps_mask(a, _mm512_set1_ps(limit), _CMP_GE_OQ); }
  static float Sum(Floats a) { return _mm512_reduce_add_ps(a); }
  template <int64_t kBlocks>
  static Floats Scales(const uint16_t* scales) {
    const __m512i four = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m512i two = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    int32_t pair;
    memcpy(&pair, scales, sizeof pair);
    const __m128i halves = kBlocks == 4 ? _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales))
                                        : _mm_cvtsi32_si128(pair);
    return _mm512_permutexvar_ps(kBlocks == 4 ? four : two, _mm512_castps128_ps512(_mm_cvtph_ps(halves)));
  }
  static Floats Broadcast(float value) { return _mm512_set1_ps(value); }
  static Floats BroadcastHalf(uint16_t value) {
    return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(value)));
  }
  static void Store(float* to, Floats a) { _mm512_storeu_ps(to, a); }
  static Floats LoadFloats(const float* from) { return _mm512_loadu_ps(from); }
  static Floats LoadFloats(const uint16_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Floats LoadFloats(const int8_t* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
  static Floats LoadFloats(const BFloat16* from) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
};

#include "products_avx512.h"
#include "products_impl.h"
#include "select_impl.h"
#include "kernels_impl.h"

}  // namespace avx512
}  // namespace

const Kernels* Avx512Kernels() {
  const bool usable = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
  return usable ? &avx512::kTable : nullptr;
}

}  // namespace flashhead

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else
namespace flashhead {
const Kernels* Avx512Kernels() { return nullptr; }
}  // namespace flashhead
#endif
