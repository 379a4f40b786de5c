// The best of many scores.
#pragma once

#include <stdint.h>

namespace flashhead {

// Writes the places of the `count` greatest of scores[0..size) to `places`, in ascending order of the place; of equal
// scores the lowest places are taken, and NaN comes after everything.
void SelectBest(const float* scores, int64_t size, int64_t count, int32_t* places);

// The `count`-th greatest of scores[0..size), without NaN; minus infinity where there are fewer numbers.
float NthBest(const float* scores, int64_t size, int64_t count);

}  // namespace flashhead
