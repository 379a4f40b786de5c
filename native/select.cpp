#include "select.h"

#include <float.h>

#include <algorithm>
#include <vector>

namespace flashhead {
namespace {

constexpr int kBuckets = 1024;

struct Order {
  const float* scores;
  // Whether place a comes before place b.
  bool operator()(int32_t a, int32_t b) const {
    const float x = scores[a], y = scores[b];
    if (x > y) return true;
    if (x < y) return false;
    if (x == y) return a < b;
    const bool x_is_number = x == x, y_is_number = y == y;
    return x_is_number == y_is_number ? a < b : x_is_number;
  }
};

}  // namespace

void SelectBest(const float* scores, int64_t size, int64_t count, int32_t* places) {
  if (count >= size) {
    for (int64_t i = 0; i < size; ++i) places[i] = static_cast<int32_t>(i);
    return;
  }
  // Equal steps between the least and the greatest number; only the bucket that holds the last place taken is sorted.
  float low = FLT_MAX, high = -FLT_MAX;
  for (int64_t i = 0; i < size; ++i) {
    const float score = scores[i];
    const bool finite = score >= -FLT_MAX && score <= FLT_MAX;
    low = finite && score < low ? score : low;
    high = finite && score > high ? score : high;
  }
  const float range = high - low;
  const float steps = range > FLT_MIN && range <= FLT_MAX ? (kBuckets - 2) / range : 0;
  const auto bucket = [&](float score) {
    if (!(score > low)) return 0;  // also NaN
    if (score > high) return kBuckets - 1;
    return std::min(static_cast<int>((score - low) * steps), kBuckets - 2);
  };
  int32_t counts[kBuckets] = {};
  thread_local std::vector<int16_t> buckets;
  thread_local std::vector<int32_t> last;
  buckets.resize(size);
  for (int64_t i = 0; i < size; ++i) {
    const int place = bucket(scores[i]);
    buckets[i] = static_cast<int16_t>(place);
    ++counts[place];
  }
  int border = kBuckets - 1;
  int64_t taken = 0;
  while (taken + counts[border] < count) taken += counts[border--];
  last.clear();
  for (int64_t i = 0; i < size; ++i) {
    if (buckets[i] == border) last.push_back(static_cast<int32_t>(i));
  }
  const Order before{scores};
  const auto nth = last.begin() + (count - taken - 1);
  std::nth_element(last.begin(), nth, last.end(), before);
  const int32_t worst = *nth;
  int64_t found = 0;
  for (int64_t i = 0; i < size && found < count; ++i) {
    places[found] = static_cast<int32_t>(i);
    found += buckets[i] > border || (buckets[i] == border && !before(worst, static_cast<int32_t>(i)));
  }
}

}  // namespace flashhead
