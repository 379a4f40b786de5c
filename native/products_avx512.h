// Sixteen rows of a weight in the lanes of AVX-512 with VNNI; see products_impl.h.
struct Rows {
  static constexpr int64_t kRows = 16;
  using Quads = __m512i;
  using Ints = __m512i;
  using Floats = __m512;
  template <int kBits>
  static constexpr int kMiddle = 0;

  static __m512i FourRows(const uint8_t* from, int64_t step) {
    const auto load = [&](int64_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * step)); };
    const __m512i one = _mm512_castsi128_si512(load(0)), two = _mm512_inserti32x4(one, load(1), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(two, load(2), 2), load(3), 3);
  }
  static void Transposed(const uint8_t* from, int64_t stride, Quads* quads) {
    const __m512i a = FourRows(from, 4 * stride), b = FourRows(from + stride, 4 * stride);
    const __m512i c = FourRows(from + 2 * stride, 4 * stride), d = FourRows(from + 3 * stride, 4 * stride);
    const __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    const __m512i ab2 = _mm512_unpackhi_epi32(a, b), cd2 = _mm512_unpackhi_epi32(c, d);
    quads[0] = _mm512_unpacklo_epi64(ab, cd);
    quads[1] = _mm512_unpackhi_epi64(ab, cd);
    quads[2] = _mm512_unpacklo_epi64(ab2, cd2);
    quads[3] = _mm512_unpackhi_epi64(ab2, cd2);
  }
  static Quads Low(Quads quads) { return _mm512_and_si512(quads, _mm512_set1_epi8(15)); }
  static Quads High(Quads quads) { return Low(_mm512_srli_epi16(quads, 4)); }
  template <int kBits>
  static Quads Signed(Quads quads) {
    return quads;
  }
  template <int kBits>
  static Ints Field(Quads quads, int i) {
    return _mm512_and_si512(_mm512_srl_epi32(quads, _mm_cvtsi32_si128(i)), Same((1 << kBits) - 1));
  }
  template <int kBits>
  static Ints Dot(const Quads* quads, const int8_t* codes, Ints zeros, int32_t sum) {
    Ints total = _mm512_madd_epi16(zeros, Same(sum));  // both fit 16 bits, and the upper halves of zeros are 0
    for (int i = 0; i < 8; ++i) {
      int32_t four;
      memcpy(&four, codes + 4 * i, sizeof four);
      total = _mm512_dpbusd_epi32(total, quads[i], Same(four));
    }
    return total;
  }
  static Ints Same(int32_t value) { return _mm512_set1_epi32(value); }
  static Floats Same(float value) { return _mm512_set1_ps(value); }
  static Ints Minus(Ints ints, int) { return ints; }
  static void Widen(Quads quads, Floats* floats) {
    floats[0] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(quads));
    floats[1] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(quads, 16)));
  }
  static Floats Multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats MultiplyAdd(Ints a, Floats b, Floats c) { return _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), b, c); }
  static Floats Load(const float* from) { return _mm512_loadu_ps(from); }
  static void Store(float* to, Floats a) { _mm512_storeu_ps(to, a); }
};
