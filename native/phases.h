// How long the phases of RunHead take, for whoever asks. While nobody does, a call of RunHead loads one flag for it.
#pragma once

#include <stdint.h>

namespace flashhead {

enum Phase { kScoreCentroids, kSelectClusters, kScoreRows, kPhases };

// Sums over all calls since TimePhases(true); phases of concurrent calls add up.
struct PhaseTimes {
  int64_t calls;
  int64_t nanoseconds[kPhases];
};

void TimePhases(bool on);
PhaseTimes CurrentPhaseTimes();

// Lives as long as a call.
class PhaseClock {
 public:
  PhaseClock();
  void End(Phase phase) {
    if (on_) Add(phase);
  }

 private:
  void Add(Phase phase);

  bool on_;
  int64_t last_ = 0;
};

}  // namespace flashhead
