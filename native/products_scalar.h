// One row of a weight; see products_impl.h.
struct Rows {
  static constexpr int64_t kRows = 1;
  struct Quads { uint8_t byte[4]; };
  using Ints = int32_t;
  using Floats = float;
  template <int kBits>
  static constexpr int kMiddle = 0;

  static void Transposed(const uint8_t* from, int64_t, Quads* quads) { memcpy(quads, from, 16); }
  static Quads Low(Quads quads) {
    for (uint8_t& byte : quads.byte) byte &= 15;
    return quads;
  }
  static Quads High(Quads quads) {
    for (uint8_t& byte : quads.byte) byte >>= 4;
    return quads;
  }
  template <int kBits>
  static Quads Signed(Quads quads) {
    return quads;
  }
  template <int kBits>
  static Ints Field(Quads quads, int i) {
    uint32_t four;
    memcpy(&four, quads.byte, sizeof four);
    return static_cast<Ints>(four >> i & ((1u << kBits) - 1));
  }
  template <int kBits>
  static Ints Dot(const Quads* quads, const int8_t* codes, Ints zeros, int32_t sum) {
    uint8_t bytes[kBlock];
    memcpy(bytes, quads, sizeof bytes);
    Ints total = zeros * sum;
    for (int64_t i = 0; i < kBlock; ++i) total += bytes[i] * codes[i];
    return total;
  }
  static Ints Same(int32_t value) { return value; }
  static Floats Same(float value) { return value; }
  static Ints Minus(Ints ints, int) { return ints; }
  static void Widen(Quads quads, Floats* floats) {
    uint16_t halves[2];
    memcpy(halves, quads.byte, sizeof halves);
    for (int i = 0; i < 2; ++i) floats[i] = HalfToFloat(halves[i]);
  }
  static Floats Multiply(Floats a, Floats b) { return a * b; }
  static Floats MultiplyAdd(Ints a, Floats b, Floats c) { return __builtin_fmaf(static_cast<float>(a), b, c); }
  static Floats Load(const float* from) { return *from; }
  static void Store(float* to, Floats a) { *to = a; }
};
