// RMS norms: x * weight / sqrt(mean of x^2 + epsilon). Zhang and Sennrich, arXiv 1910.07467.
//
// Squares are summed in sixteen lanes, whatever the processor: a vector's result has the same bits everywhere.
#pragma once

#include <math.h>
#include <stdint.h>

namespace flashhead {

inline float RootMeanSquare(const float* from, int64_t width, float epsilon) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes] = {};
  const int64_t full = width / kLanes * kLanes;
  for (int64_t i = 0; i < full; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += from[i + lane] * from[i + lane];
  }
  for (int64_t i = full; i < width; ++i) lanes[i - full] += from[i] * from[i];
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sqrtf(sum / static_cast<float>(width) + epsilon);
}

inline void Normalize(const float* from, const float* weight, float epsilon, int64_t width, float* to) {
  const float root = RootMeanSquare(from, width, epsilon);
  for (int64_t i = 0; i < width; ++i) to[i] = from[i] / root * weight[i];
}

}  // namespace flashhead
