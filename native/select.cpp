#include "select.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "dispatch.h"

namespace flashhead {
namespace {

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
  thread_local std::vector<int32_t> some;
  thread_local std::vector<float> maxima;
  some.resize(size);
  int64_t found = 0;
  // Of at least `count` groups, the greatest `count` maxima are scores themselves: the least of them is a limit that
  // `count` scores reach, and hardly more do.
  const int64_t groups = std::min(size, std::max<int64_t>(64, 2 * count));
  if (count < size) {
    const Kernels& kernels = *CurrentKernels();
    maxima.resize(groups);
    kernels.greatest(scores, size, groups, maxima.data());
    const auto limit = maxima.begin() + (count - 1);
    std::nth_element(maxima.begin(), limit, maxima.end(), std::greater<float>());
    found = kernels.at_least(scores, size, *limit, some.data());
  }
  if (found < count) {  // all are wanted, or NaN is among them
    for (int64_t i = 0; i < size; ++i) some[i] = static_cast<int32_t>(i);
    found = size;
  }
  if (found > count) {
    const Order before{scores};
    thread_local std::vector<int32_t> sorted;
    sorted.assign(some.begin(), some.begin() + found);
    const auto last = sorted.begin() + (count - 1);
    std::nth_element(sorted.begin(), last, sorted.begin() + found, before);
    const int32_t worst = *last;
    int64_t kept = 0;
    for (int64_t i = 0; i < found; ++i) {
      const int32_t place = some[i];
      some[kept] = place;
      kept += !before(worst, place);
    }
  }
  std::copy_n(some.begin(), count, places);
}

}  // namespace flashhead
