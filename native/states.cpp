#include "states.h"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "dispatch.h"
#include "products.h"

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
    high_.Resize(count, padded);
  }
  for (int64_t i = 0; i < count; ++i) {
    states_[i].values = values + i * width;
    pointers_[i] = &states_[i];
    if (low_bit) {
      Round(states_[i].values, width, padded, &states_[i], planes_.data() + i * 2 * padded,
            middles_.data() + i * (padded / 8 + padded / 4));
      high_.Round(states_[i].values, width, padded, i, &states_[i]);
    }
  }
}

void States::High::Resize(int64_t count, int64_t padded) {
  codes.assign(static_cast<size_t>(count * padded), 0);
  scales.assign(static_cast<size_t>(count * padded / 8), 0.0f);
  middles.assign(static_cast<size_t>(count * padded / 8), 0);
}

// Rounded as states of products are, and laid out for nibbles.
void States::High::Round(const float* values, int64_t width, int64_t padded, int64_t number, State* state) {
  constexpr int64_t kHalf = kBlock / 2, kLanes = kHalf / 4;
  const int64_t blocks = (width + kBlock - 1) / kBlock;
  rounded.resize(static_cast<size_t>(padded));
  factors.resize(static_cast<size_t>(blocks));
  sums.resize(static_cast<size_t>(blocks));
  CurrentKernels()->round_states(values, width, 8, {1, rounded.data(), factors.data(), sums.data()});
  int8_t* const planes[2] = {codes.data() + number * padded, codes.data() + number * padded + padded / 2};
  float* const scale = scales.data() + number * padded / 8;
  int32_t* const middle = middles.data() + number * padded / 8;
  for (int j = 0; j < 2; ++j) state->planes_high[j] = planes[j];
  state->scales_high = scale;
  state->middle_high = middle;
  for (int64_t b = 0; b < blocks; ++b) {
    std::fill_n(scale + b * kLanes, kLanes, factors[b]);
    int32_t lanes[kLanes] = {};
    for (int64_t i = 0; i < kBlock; ++i) {
      const int8_t code = rounded[b * kBlock + i];
      planes[i / kHalf][b * kHalf + i % kHalf] = code;
      lanes[i % kHalf / 4] += code;
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      middle[b * kLanes + lane] = static_cast<int32_t>(lrintf(-7.53125f * static_cast<float>(lanes[lane])));
    }
  }
}

void States::Round(const float* values, int64_t width, int64_t padded, State* state, int16_t* planes,
                   int32_t* middles) {
  for (int j = 0; j < 4; ++j) state->planes4[j] = planes + j * (padded / 4);
  for (int j = 0; j < 2; ++j) state->planes8[j] = planes + padded + j * (padded / 2);
  state->middle4 = middles;
  state->middle8 = middles + padded / 8;
  uint32_t greatest_bits = 0;
  for (int64_t i = 0; i < width; ++i) {
    uint32_t bits;
    memcpy(&bits, values + i, sizeof bits);
    greatest_bits = std::max(greatest_bits, bits & 0x7fffffffu);
  }
  float greatest;
  memcpy(&greatest, &greatest_bits, sizeof greatest);
  state->scale = greatest_bits < 0x7f800000u ? greatest / kGreatest : NAN;
  rounded_.assign(static_cast<size_t>(padded), 0);
  if (state->scale >= 1e-38f) {  // below, the inverse overflows and every product is as good as zero
    const float inverse = kGreatest / greatest;
    for (int64_t i = 0; i < width; ++i) {
      const float moved = values[i] * inverse + kRounding;
      memcpy(&rounded_[i], &moved, sizeof moved);
      rounded_[i] -= kRoundingBits;
    }
  }
  for (int64_t i = 0; i < padded; ++i) {
    const auto code = static_cast<int16_t>(rounded_[i]);
    planes[(i & 3) * (padded / 4) + i / 4] = code;
    planes[padded + (i & 1) * (padded / 2) + i / 2] = code;
  }
  int32_t* const middles8 = middles + padded / 8;
  for (int64_t lane = 0; lane < padded / 4; ++lane) {
    const int32_t* four = rounded_.data() + 4 * lane;
    middles8[lane] = -128 * (four[0] + four[1] + four[2] + four[3]);
  }
  for (int64_t lane = 0; lane < padded / 8; ++lane) middles[lane] = (middles8[2 * lane] + middles8[2 * lane + 1]) / 16;
}

}  // namespace flashhead
