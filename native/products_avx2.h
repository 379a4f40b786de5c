// Eight rows of a weight in the lanes of AVX2; see products_impl.h.
struct Rows {
  static constexpr int64_t kRows = 8;
  using Quads = __m256i;
  using Ints = __m256i;
  using Floats = __m256;
  template <int kBits>
  static constexpr int kMiddle = 0;

  static __m256i TwoRows(const uint8_t* from, int64_t step) {
    const auto* low = reinterpret_cast<const __m128i*>(from);
    const auto* high = reinterpret_cast<const __m128i*>(from + step);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
  }
  static void Transposed(const uint8_t* from, int64_t stride, Quads* quads) {
    const __m256i a = TwoRows(from, 4 * stride), b = TwoRows(from + stride, 4 * stride);
    const __m256i c = TwoRows(from + 2 * stride, 4 * stride), d = TwoRows(from + 3 * stride, 4 * stride);
    const __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
    const __m256i ab2 = _mm256_unpackhi_epi32(a, b), cd2 = _mm256_unpackhi_epi32(c, d);
    quads[0] = _mm256_unpacklo_epi64(ab, cd);
    quads[1] = _mm256_unpackhi_epi64(ab, cd);
    quads[2] = _mm256_unpacklo_epi64(ab2, cd2);
    quads[3] = _mm256_unpackhi_epi64(ab2, cd2);
  }
  static Quads Low(Quads quads) { return _mm256_and_si256(quads, _mm256_set1_epi8(15)); }
  static Quads High(Quads quads) { return Low(_mm256_srli_epi16(quads, 4)); }
  template <int kBits>
  static Quads Signed(Quads quads) {
    return quads;
  }
  template <int kBits>
  static Ints Field(Quads quads, int i) {
    return _mm256_and_si256(_mm256_srl_epi32(quads, _mm_cvtsi32_si128(i)), Same((1 << kBits) - 1));
  }
  template <int kBits>
  static Ints Dot(const Quads* quads, const int8_t* codes, Ints zeros, int32_t sum) {
    const Ints total = _mm256_madd_epi16(zeros, Same(sum));  // both fit 16 bits, and the upper halves of zeros are 0
    Ints part = Same(0);
    for (int i = 0; i < 8; ++i) {
      int32_t four;
      memcpy(&four, codes + 4 * i, sizeof four);
      const Ints state = Same(four);
      if (kBits == 4) {  // pairs: 16 of at most 15 * 127, which is less than 2^15
        part = _mm256_add_epi16(part, _mm256_maddubs_epi16(quads[i], state));
      } else {  // pairs of 255 * 127 are more
        const Ints even = _mm256_and_si256(quads[i], _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(quads[i], 8);
        const Ints state_even = _mm256_srai_epi16(_mm256_slli_epi16(state, 8), 8);
        part = _mm256_add_epi32(part, _mm256_madd_epi16(even, state_even));
        part = _mm256_add_epi32(part, _mm256_madd_epi16(odd, _mm256_srai_epi16(state, 8)));
      }
    }
    return _mm256_add_epi32(total, kBits == 4 ? _mm256_madd_epi16(part, _mm256_set1_epi16(1)) : part);
  }
  static Ints Same(int32_t value) { return _mm256_set1_epi32(value); }
  static Floats Same(float value) { return _mm256_set1_ps(value); }
  static Ints Minus(Ints ints, int) { return ints; }
  static void Widen(Quads quads, Floats* floats) {
    const __m256i low = _mm256_and_si256(quads, _mm256_set1_epi32(0xffff)), high = _mm256_srli_epi32(quads, 16);
    const __m256i both = _mm256_packus_epi32(low, high);  // of each 128 bits: four low ones, four high ones
    const __m256i sorted = _mm256_permute4x64_epi64(both, 0xd8);
    floats[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(sorted));
    floats[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(sorted, 1));
  }
  static Floats Multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats MultiplyAdd(Ints a, Floats b, Floats c) { return _mm256_fmadd_ps(_mm256_cvtepi32_ps(a), b, c); }
  static Floats Load(const float* from) { return _mm256_loadu_ps(from); }
  static void Store(float* to, Floats a) { _mm256_storeu_ps(to, a); }
};
