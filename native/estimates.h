// What greedy steps of the head share: how far estimates may be off, and lists of what is scored after them.
#pragma once

#include <math.h>
#include <stdint.h>

#include <algorithm>
#include <vector>

namespace flashhead {

// A row is left out whose exact product would have to lie so many standard deviations above its estimate to be the best.
// The deviation is that of the best estimates, which are checked anyway and err more than others, being the best.
constexpr float kDeviations = 5;
// A centroid is left out, or opened unseen, that would have to lie so many deviations on the other side of the last one
// that is opened. Fewer, for the clusters about there hold the token once in hundreds of steps.
constexpr float kCentroidDeviations = 4;

inline int64_t Ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How far estimates were off where the exact number is known, and so how far others may be.
struct Errors {
  float squares = 0;
  int64_t count = 0;
  void Add(float error) {
    squares += error * error;
    ++count;
  }
  float Reach(float deviations) const { return deviations * sqrtf(squares / static_cast<float>(count)); }
};

// The states' lists of numbers, cut into tasks.
class Pieces {
 public:
  struct Piece {
    int64_t state, begin, end;
  };

  void Cut(const std::vector<std::vector<int32_t>>& lists, int64_t at_once) {
    at_once_ = at_once;
    first_.assign(1, 0);
    sizes_.clear();
    for (const auto& list : lists) {
      sizes_.push_back(static_cast<int64_t>(list.size()));
      first_.push_back(first_.back() + Ceiling(sizes_.back(), at_once));
    }
  }
  int64_t count() const { return first_.back(); }
  Piece operator[](int64_t task) const {
    const int64_t state = std::upper_bound(first_.begin(), first_.end(), task) - first_.begin() - 1;
    const int64_t begin = (task - first_[state]) * at_once_;
    return {state, begin, std::min(begin + at_once_, sizes_[state])};
  }

 private:
  int64_t at_once_ = 1;
  std::vector<int64_t> first_, sizes_;  // a state's first task
};

}  // namespace flashhead
