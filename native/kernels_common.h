// What kernels_impl.h needs from outside its instruction set.
#pragma once

#include <string.h>

#include "kernels.h"
#include "products.h"

namespace flashhead {

// States whose rows are walked together.
constexpr int64_t kMaxStates = 64;

// A block's int8 codes from their halves; see Kernels::rows_nibbles.
inline void JoinNibbles(const uint8_t* high, const uint8_t* low, int8_t* codes) {
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    codes[i] = static_cast<int8_t>(((high[i] & 15) << 4 | (low[i] & 15)) ^ 128);
    codes[kBlock / 2 + i] = static_cast<int8_t>(((high[i] & 240) | low[i] >> 4) ^ 128);
  }
}

inline float ElementToFloat(float value) { return value; }
inline float ElementToFloat(int8_t value) { return value; }
inline float ElementToFloat(uint16_t half) { return HalfToFloat(half); }
inline float ElementToFloat(BFloat16 half) {
  const uint32_t bits = static_cast<uint32_t>(half.bits) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

}  // namespace flashhead
