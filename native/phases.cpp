#include "phases.h"

#include <atomic>
#include <chrono>

namespace flashhead {
namespace {

std::atomic<bool> timing{false};
std::atomic<int64_t> calls{0}, nanoseconds[kPhases];

int64_t Now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace

void TimePhases(bool on) {
  timing = false;
  if (!on) return;
  calls = 0;
  for (auto& sum : nanoseconds) sum = 0;
  timing = true;
}

PhaseTimes CurrentPhaseTimes() {
  PhaseTimes times{calls, {}};
  for (int i = 0; i < kPhases; ++i) times.nanoseconds[i] = nanoseconds[i];
  return times;
}

PhaseClock::PhaseClock() : on_(timing.load(std::memory_order_relaxed)) {
  if (!on_) return;
  ++calls;
  last_ = Now();
}

void PhaseClock::Add(Phase phase) {
  const int64_t now = Now();
  nanoseconds[phase] += now - last_;
  last_ = now;
}

}  // namespace flashhead
