// What kernels_impl.h needs from outside its instruction set.
#pragma once

#include "kernels.h"

namespace flashhead {

// States whose rows are walked together.
constexpr int64_t kMaxStates = 64;

inline float ElementToFloat(float value) { return value; }
inline float ElementToFloat(uint16_t half) { return HalfToFloat(half); }

}  // namespace flashhead
