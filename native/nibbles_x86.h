// Halves of int8 codes put together, by instructions of any 64-bit x86.
struct Nibbles {
  static void JoinNibbles(const uint8_t* high, const uint8_t* low, int8_t* codes) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(high));
    const __m128i l = _mm_loadu_si128(reinterpret_cast<const __m128i*>(low));
    const __m128i lower = _mm_set1_epi8(15), upper = _mm_set1_epi8(static_cast<char>(0xf0));
    const __m128i middle = _mm_set1_epi8(static_cast<char>(0x80));
    const __m128i first = _mm_or_si128(_mm_and_si128(_mm_slli_epi16(h, 4), upper), _mm_and_si128(l, lower));
    const __m128i last = _mm_or_si128(_mm_and_si128(h, upper), _mm_and_si128(_mm_srli_epi16(l, 4), lower));
    auto* out = reinterpret_cast<__m128i*>(codes);
    _mm_storeu_si128(out, _mm_xor_si128(first, middle));
    _mm_storeu_si128(out + 1, _mm_xor_si128(last, middle));
  }
};
