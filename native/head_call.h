// One call of the head, as its stages see it.
#pragma once

#include <math.h>

#include "head.h"
#include "kernels.h"
#include "share.h"

namespace flashhead {

// Bytes of rows in a task: short enough to share among threads evenly, long enough to make the hand-over cheap.
constexpr int64_t kTaskBytes = 96 << 10;
// What greedy decoding returns where every logit is NaN, as the graph of standard operators does.
constexpr int64_t kNoToken = int64_t{1} << 30;

struct HeadCall {
  const Head& head;
  const HeadOutputs& out;
  const int64_t batch;
  Pool& pool;
  const Kernels& kernels;

  // work(i) for i < count, on all threads.
  template <class Work>
  void Parallel(int64_t count, const Work& work) const {
    Share(pool, count, false, work);
  }
};

// The token with the greatest logit so far; of equal ones the lowest.
struct Best {
  float logit = -INFINITY;
  int64_t token = kNoToken;
  void Take(float other, int64_t id) {
    if (other > logit || (other == logit && id < token)) {
      logit = other;
      token = id;
    }
  }
};

}  // namespace flashhead
