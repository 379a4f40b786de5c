#include "states.h"

#include <math.h>
#include <string.h>

#include <algorithm>

namespace flashhead {
namespace {

constexpr float kGreatest = 32767;

int64_t PaddedWidth(int64_t width) {
  const int64_t step = kBlock * kBlocksPadding;
  return (width + step - 1) / step * step;
}

}  // namespace

void States::Assign(const float* values, int64_t count, int64_t width, bool low_bit) {
  const int64_t padded = PaddedWidth(width);
  states_.assign(count, State{});
  pointers_.resize(count);
  if (low_bit) {
    planes_.assign(count * 2 * padded, 0);
    middles_.resize(count * (padded / 8 + padded / 4));
  }
  for (int64_t i = 0; i < count; ++i) {
    states_[i].values = values + i * width;
    pointers_[i] = &states_[i];
    if (low_bit) {
      Round(states_[i].values, width, padded, &states_[i], planes_.data() + i * 2 * padded,
            middles_.data() + i * (padded / 8 + padded / 4));
    }
  }
}

void States::Round(const float* values, int64_t width, int64_t padded, State* state, int16_t* planes,
                   int32_t* middles) {
  float greatest = 0;
  bool finite = true;
  for (int64_t i = 0; i < width; ++i) {
    greatest = std::max(greatest, fabsf(values[i]));
    finite = finite && isfinite(values[i]);
  }
  for (int j = 0; j < 4; ++j) state->planes4[j] = planes + j * (padded / 4);
  for (int j = 0; j < 2; ++j) state->planes8[j] = planes + padded + j * (padded / 2);
  state->middle4 = middles;
  state->middle8 = middles + padded / 8;
  state->scale = finite ? greatest / kGreatest : NAN;
  if (finite && state->scale >= 1e-38f) {  // below, the inverse overflows and every product is as good as zero
    const float inverse = kGreatest / greatest;
    for (int64_t i = 0; i < width; ++i) {
      const auto code = static_cast<int16_t>(std::clamp(lrintf(values[i] * inverse), -32767L, 32767L));
      planes[(i & 3) * (padded / 4) + i / 4] = code;
      planes[padded + (i & 1) * (padded / 2) + i / 2] = code;
    }
  }
  for (int64_t lane = 0; lane < padded / 8; ++lane) {
    int32_t sum = 0;
    for (int j = 0; j < 4; ++j) sum += state->planes4[j][2 * lane] + state->planes4[j][2 * lane + 1];
    middles[lane] = -8 * sum;
  }
  for (int64_t lane = 0; lane < padded / 4; ++lane) {
    int32_t sum = 0;
    for (int j = 0; j < 2; ++j) sum += state->planes8[j][2 * lane] + state->planes8[j][2 * lane + 1];
    middles[padded / 8 + lane] = -128 * sum;
  }
}

}  // namespace flashhead
