// What kernels_impl.h needs from outside its instruction set.
#pragma once

#include <string.h>

#include "kernels.h"
#include "products.h"

namespace flashhead {

// States whose rows are walked together.
constexpr int64_t kMaxStates = 64;

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
