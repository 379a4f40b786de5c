#include "select.h"

#include <algorithm>
#include <vector>

#include "dispatch.h"

namespace flashhead {
namespace {

// Places of all numbers, and of as many NaN as are wanted besides.
void SelectNumbers(const float* scores, int64_t size, int64_t count, int32_t* places) {
  const int64_t numbers = std::count_if(scores, scores + size, [](float score) { return score == score; });
  int64_t rest = count - numbers;
  for (int64_t i = 0; i < size; ++i) {
    const bool taken = scores[i] == scores[i] || rest-- > 0;
    if (taken) *places++ = static_cast<int32_t>(i);
  }
}

// Places, ascending, of a few scores among which the `count` greatest are; of fewer where NaN are among those.
struct Few {
  std::vector<int32_t> places;
  std::vector<float> scores;
  int64_t found = 0;

  void Take(const float* all, int64_t size, int64_t count) {
    const Kernels& kernels = *CurrentKernels();
    // Of at least `count` groups, the greatest `count` maxima are scores themselves: the least of them is a limit that
    // `count` scores reach, and hardly more do.
    const int64_t groups = std::min(size, std::max<int64_t>(64, 2 * count));
    if (static_cast<int64_t>(scores.size()) < size) {  // less would be filled again when it grows
      scores.resize(size);
      places.resize(size);
    }
    kernels.greatest(all, size, groups, scores.data());
    found = kernels.at_least(all, size, kernels.nth_greatest(scores.data(), groups, count), places.data());
    for (int64_t i = 0; i < found; ++i) scores[i] = all[places[i]];
  }
};

Few& FewOf(const float* scores, int64_t size, int64_t count) {
  thread_local Few few;
  few.Take(scores, size, count);
  return few;
}

}  // namespace

float NthBest(const float* scores, int64_t size, int64_t count) {
  const Few& few = FewOf(scores, size, count);
  return CurrentKernels()->nth_greatest(few.scores.data(), few.found, count);
}

void SelectBest(const float* scores, int64_t size, int64_t count, int32_t* places) {
  if (count == size) {
    for (int64_t i = 0; i < size; ++i) places[i] = static_cast<int32_t>(i);
    return;
  }
  Few& few = FewOf(scores, size, count);
  if (few.found < count) return SelectNumbers(scores, size, count, places);
  const float worst = CurrentKernels()->nth_greatest(few.scores.data(), few.found, count);
  int64_t equal = count;  // of those as bad as the worst, the first are taken
  for (int64_t i = 0; i < few.found; ++i) equal -= few.scores[i] > worst;
  int64_t kept = 0;
  for (int64_t i = 0; i < few.found; ++i) {  // no branch that a processor has to guess
    const bool same = few.scores[i] == worst;
    few.places[kept] = few.places[i];
    kept += (few.scores[i] > worst) | (same & (equal > 0));
    equal -= same;
  }
  std::copy_n(few.places.begin(), count, places);
}

}  // namespace flashhead
