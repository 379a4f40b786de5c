// Portable kernels; compilers turn the loops over lanes into whatever vectors the target's baseline has.
#include <string.h>

#include "kernels_common.h"

namespace flashhead {

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent == 0) {
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -value : value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

namespace {
namespace scalar {

struct Simd {
  static constexpr const char* kName = "scalar";
  static constexpr int64_t kCodeBytes = 32, kFloats = 8, kLanes = 8;
  struct Codes { uint16_t lane[16]; };
  struct Ints { int32_t lane[kLanes]; };
  struct Floats { float lane[kLanes]; };

  static Codes LoadCodes(const uint8_t* from) {
    Codes codes;
    memcpy(codes.lane, from, sizeof codes.lane);
    return codes;
  }
  static Codes LoadCodesPartial(const uint8_t* from, int64_t bytes) {
    Codes codes = {};
    memcpy(codes.lane, from, static_cast<size_t>(bytes));
    return codes;
  }
  template <int kBits>
  static Codes Plane(int j, Codes codes) {
    for (auto& lane : codes.lane) lane = static_cast<uint16_t>((lane >> (j * kBits)) & ((1 << kBits) - 1));
    return codes;
  }
  static Ints LoadInts(const int32_t* from) {
    Ints ints;
    memcpy(ints.lane, from, sizeof ints.lane);
    return ints;
  }
  static Ints MultiplyAdd(Ints sum, Codes codes, const int16_t* plane) {
    for (int i = 0; i < kLanes; ++i) {
      sum.lane[i] += codes.lane[2 * i] * plane[2 * i] + codes.lane[2 * i + 1] * plane[2 * i + 1];
    }
    return sum;
  }
  static Ints AddNibbles(Ints sum, Codes codes, const int8_t* low, const int8_t* high) {
    uint8_t bytes[kCodeBytes];
    memcpy(bytes, codes.lane, sizeof bytes);
    for (int i = 0; i < kCodeBytes; ++i) sum.lane[i / 4] += (bytes[i] & 15) * low[i] + (bytes[i] >> 4) * high[i];
    return sum;
  }
  static Floats Multiply(Floats a, Floats b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] *= b.lane[i];
    return a;
  }
  static Floats ToFloats(Ints ints) {
    Floats floats;
    for (int i = 0; i < kLanes; ++i) floats.lane[i] = static_cast<float>(ints.lane[i]);
    return floats;
  }
  static Floats Zero() { return {}; }
  static Floats Add(Floats a, Floats b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] += b.lane[i];
    return a;
  }
  static Floats MultiplyAdd(Floats a, Floats b, Floats c) {
    for (int i = 0; i < kLanes; ++i) c.lane[i] += a.lane[i] * b.lane[i];
    return c;
  }
  static uint32_t AtLeast(Floats a, float limit) {
    uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(a.lane[i] >= limit) << i;
    return bits;
  }
  static Floats Broadcast(float value) {
    Floats floats;
    for (float& lane : floats.lane) lane = value;
    return floats;
  }
  static Floats BroadcastHalf(uint16_t value) { return Broadcast(HalfToFloat(value)); }
  static void Store(float* to, Floats a) { memcpy(to, a.lane, sizeof a.lane); }
  static float Sum(Floats a) {
    for (int half = kLanes / 2; half; half /= 2) {
      for (int i = 0; i < half; ++i) a.lane[i] += a.lane[i + half];
    }
    return a.lane[0];
  }
  template <int64_t kBlocks>
  static Floats Scales(const uint16_t* scales) {
    Floats floats;
    for (int i = 0; i < kLanes; ++i) floats.lane[i] = HalfToFloat(scales[i * kBlocks / kLanes]);
    return floats;
  }
  static void JoinNibbles(const uint8_t* high, const uint8_t* low, int8_t* codes) {
    flashhead::JoinNibbles(high, low, codes);
  }
  template <class Element>
  static Floats LoadFloats(const Element* from) {
    Floats floats;
    for (int i = 0; i < kLanes; ++i) floats.lane[i] = ElementToFloat(from[i]);
    return floats;
  }
};

#include "products_scalar.h"
#include "products_impl.h"
#include "select_impl.h"
#include "kernels_impl.h"

}  // namespace scalar
}  // namespace

const Kernels* ScalarKernels() { return &scalar::kTable; }

}  // namespace flashhead
