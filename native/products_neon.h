// Four rows of a weight in the lanes of NEON; see products_impl.h. FLASHHEAD_DOT: with instructions for four products.
struct Rows {
  static constexpr int64_t kRows = 4;
  using Quads = int8x16_t;
  using Ints = int32x4_t;
  using Floats = float32x4_t;
  // Codes are multiplied as signed numbers.
  template <int kBits>
  static constexpr int kMiddle = kBits == 8 ? 128 : 0;

  static void Transposed(const uint8_t* from, int64_t stride, Quads* quads) {
    const auto load = [&](int64_t i) { return vreinterpretq_u32_u8(vld1q_u8(from + i * stride)); };
    const uint32x4_t a = load(0), b = load(1), c = load(2), d = load(3);
    const uint64x2_t ab = vreinterpretq_u64_u32(vzip1q_u32(a, b)), cd = vreinterpretq_u64_u32(vzip1q_u32(c, d));
    const uint64x2_t ab2 = vreinterpretq_u64_u32(vzip2q_u32(a, b)), cd2 = vreinterpretq_u64_u32(vzip2q_u32(c, d));
    quads[0] = vreinterpretq_s8_u64(vzip1q_u64(ab, cd));
    quads[1] = vreinterpretq_s8_u64(vzip2q_u64(ab, cd));
    quads[2] = vreinterpretq_s8_u64(vzip1q_u64(ab2, cd2));
    quads[3] = vreinterpretq_s8_u64(vzip2q_u64(ab2, cd2));
  }
  static Quads Low(Quads quads) { return vandq_s8(quads, vdupq_n_s8(15)); }
  static Quads High(Quads quads) { return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(quads), 4)); }
  template <int kBits>
  static Quads Signed(Quads quads) {
    return kBits == 8 ? veorq_s8(quads, vdupq_n_s8(-128)) : quads;
  }
  template <int kBits>
  static Ints Field(Quads quads, int i) {
    const uint32x4_t moved = vshlq_u32(vreinterpretq_u32_s8(quads), vdupq_n_s32(-i));
    return vreinterpretq_s32_u32(vandq_u32(moved, vdupq_n_u32((1 << kBits) - 1)));
  }
  template <int kBits>
  static Ints Dot(const Quads* quads, const int8_t* codes, Ints zeros, int32_t sum) {
    const Ints total = vmulq_s32(zeros, Same(sum));
#if defined(FLASHHEAD_DOT)
    const int8x16_t first = vld1q_s8(codes), second = vld1q_s8(codes + 16);
    Ints low = vdotq_laneq_s32(total, quads[0], first, 0), high = vdotq_laneq_s32(Same(0), quads[4], second, 0);
    low = vdotq_laneq_s32(low, quads[1], first, 1), high = vdotq_laneq_s32(high, quads[5], second, 1);
    low = vdotq_laneq_s32(low, quads[2], first, 2), high = vdotq_laneq_s32(high, quads[6], second, 2);
    low = vdotq_laneq_s32(low, quads[3], first, 3), high = vdotq_laneq_s32(high, quads[7], second, 3);
    return vaddq_s32(low, high);
#else
    Ints low = Same(0), high = Same(0);  // two sums for each row
    for (int i = 0; i < 8; ++i) {
      int32_t four;
      memcpy(&four, codes + 4 * i, sizeof four);
      const int8x8_t state = vreinterpret_s8_s32(vdup_n_s32(four));
      low = vpadalq_s16(low, vmull_s8(vget_low_s8(quads[i]), state));
      high = vpadalq_s16(high, vmull_s8(vget_high_s8(quads[i]), state));
    }
    return vaddq_s32(total, vpaddq_s32(low, high));
#endif
  }
  static Ints Same(int32_t value) { return vdupq_n_s32(value); }
  static Floats Same(float value) { return vdupq_n_f32(value); }
  static Ints Minus(Ints ints, int amount) { return vsubq_s32(ints, Same(amount)); }
  static void Widen(Quads quads, Floats* floats) {
    const uint32x4_t both = vreinterpretq_u32_s8(quads);
    floats[0] = vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(both)));
    floats[1] = vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(both, 16)));
  }
  static Floats Multiply(Floats a, Floats b) { return vmulq_f32(a, b); }
  static Floats MultiplyAdd(Ints a, Floats b, Floats c) { return vfmaq_f32(c, vcvtq_f32_s32(a), b); }
  static Floats Load(const float* from) { return vld1q_f32(from); }
  static void Store(float* to, Floats a) { vst1q_f32(to, a); }
};
