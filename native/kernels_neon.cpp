// NEON of 64-bit ARM, in pairs of registers so that vectors have the shape of AVX2's.
#include "kernels_common.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

namespace flashhead {
namespace {
namespace neon {

struct Simd {
  static constexpr const char* kName = "neon";
  static constexpr int64_t kCodeBytes = 32, kFloats = 8;
  struct Codes { uint16x8_t half[2]; };
  struct Ints { int32x4_t half[2]; };
  struct Floats { float32x4_t half[2]; };

  static Codes LoadCodes(const uint8_t* from) {
    return {{vreinterpretq_u16_u8(vld1q_u8(from)), vreinterpretq_u16_u8(vld1q_u8(from + 16))}};
  }
  // Only half a vector can be left: a block of int4.
  static Codes LoadCodesPartial(const uint8_t* from, int64_t) {
    return {{vreinterpretq_u16_u8(vld1q_u8(from)), vdupq_n_u16(0)}};
  }
  template <int kBits>
  static Codes Plane(int j, Codes codes) {
    const int16x8_t shift = vdupq_n_s16(static_cast<int16_t>(-j * kBits));
    const uint16x8_t mask = vdupq_n_u16((1 << kBits) - 1);
    for (auto& half : codes.half) half = vandq_u16(vshlq_u16(half, shift), mask);
    return codes;
  }
  static Ints LoadInts(const int32_t* from) { return {{vld1q_s32(from), vld1q_s32(from + 4)}}; }
  static Ints MultiplyAdd(Ints sum, Codes codes, const int16_t* plane) {
    for (int i = 0; i < 2; ++i) {
      const int16x8_t lanes = vreinterpretq_s16_u16(codes.half[i]), state = vld1q_s16(plane + 8 * i);
      const int32x4_t low = vmull_s16(vget_low_s16(lanes), vget_low_s16(state));
      sum.half[i] = vaddq_s32(sum.half[i], vpaddq_s32(low, vmull_high_s16(lanes, state)));
    }
    return sum;
  }
  static Ints AddNibbles(Ints sum, Codes codes, const int8_t* low, const int8_t* high) {
    for (int i = 0; i < 2; ++i) {
      const uint8x16_t bytes = vreinterpretq_u8_u16(codes.half[i]);
      const int8x16_t first = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
      const int8x16_t last = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
      const int8x16_t a = vld1q_s8(low + 16 * i), b = vld1q_s8(high + 16 * i);
      const int16x8_t left = vmlal_s8(vmull_s8(vget_low_s8(first), vget_low_s8(a)), vget_low_s8(last), vget_low_s8(b));
      const int16x8_t right = vmlal_high_s8(vmull_high_s8(first, a), last, b);
      sum.half[i] = vaddq_s32(sum.half[i], vpaddq_s32(vpaddlq_s16(left), vpaddlq_s16(right)));
    }
    return sum;
  }
  static Floats Multiply(Floats a, Floats b) {
    return {{vmulq_f32(a.half[0], b.half[0]), vmulq_f32(a.half[1], b.half[1])}};
  }
  static Floats ToFloats(Ints ints) { return {{vcvtq_f32_s32(ints.half[0]), vcvtq_f32_s32(ints.half[1])}}; }
  static Floats Zero() { return {{vdupq_n_f32(0), vdupq_n_f32(0)}}; }
  static Floats Add(Floats a, Floats b) {
    return {{vaddq_f32(a.half[0], b.half[0]), vaddq_f32(a.half[1], b.half[1])}};
  }
  static Floats MultiplyAdd(Floats a, Floats b, Floats c) {
    return {{vfmaq_f32(c.half[0], a.half[0], b.half[0]), vfmaq_f32(c.half[1], a.half[1], b.half[1])}};
  }
  static uint32_t AtLeast(Floats a, float limit) {
    const uint32x4_t least = vdupq_n_u32(1), place = {0, 1, 2, 3};
    uint32_t bits = 0;
    for (int i = 0; i < 2; ++i) {
      const uint32x4_t lane = vandq_u32(vcgeq_f32(a.half[i], vdupq_n_f32(limit)), least);
      bits |= vaddvq_u32(vshlq_u32(lane, vreinterpretq_s32_u32(place))) << (4 * i);
    }
    return bits;
  }
  static Floats Broadcast(float value) { return {{vdupq_n_f32(value), vdupq_n_f32(value)}}; }
  static Floats BroadcastHalf(uint16_t value) {
    const float32x4_t wide = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(value)));
    return {{wide, wide}};
  }
  static void Store(float* to, Floats a) {
    vst1q_f32(to, a.half[0]);
    vst1q_f32(to + 4, a.half[1]);
  }
  static float Sum(Floats a) { return vaddvq_f32(vaddq_f32(a.half[0], a.half[1])); }
  template <int64_t kBlocks>
  static Floats Scales(const uint16_t* scales) {
    return {{BroadcastHalf(scales[0]).half[0], BroadcastHalf(scales[kBlocks - 1]).half[0]}};
  }
  static void JoinNibbles(const uint8_t* high, const uint8_t* low, int8_t* codes) {
    const uint8x16_t h = vld1q_u8(high), l = vld1q_u8(low), middle = vdupq_n_u8(128);
    vst1q_s8(codes, vreinterpretq_s8_u8(veorq_u8(vsliq_n_u8(l, h, 4), middle)));
    vst1q_s8(codes + 16, vreinterpretq_s8_u8(veorq_u8(vsriq_n_u8(h, l, 4), middle)));
  }
  static Floats LoadFloats(const float* from) { return {{vld1q_f32(from), vld1q_f32(from + 4)}}; }
  static Floats LoadFloats(const uint16_t* from) {
    const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(from));
    return {{vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)}};
  }
  static Floats LoadFloats(const int8_t* from) {
    const int16x8_t wide = vmovl_s8(vld1_s8(from));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))}};
  }
  static Floats LoadFloats(const BFloat16* from) {
    const uint16x8_t halves = vld1q_u16(reinterpret_cast<const uint16_t*>(from));
    return {{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(halves), 16)),
             vreinterpretq_f32_u32(vshll_high_n_u16(halves, 16))}};
  }
};

#include "products_neon.h"
#include "products_impl.h"
#include "select_impl.h"
#include "kernels_impl.h"

}  // namespace neon

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define FLASHHEAD_DOT
namespace neon_dot {

#include "products_neon.h"
#include "products_impl.h"

}  // namespace neon_dot
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

Kernels WithDot() {
  Kernels kernels = neon::kTable;
  kernels.round_states = neon_dot::RoundStates;
  kernels.products = neon_dot::ProductRows;
  return kernels;
}

}  // namespace

const Kernels* NeonKernels() {
  static const Kernels with_dot = WithDot();
  const bool has_dot = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
  return has_dot ? &with_dot : &neon::kTable;
}

}  // namespace flashhead

#else
namespace flashhead {
const Kernels* NeonKernels() { return nullptr; }
}  // namespace flashhead
#endif
