// Plain functions for ctypes. They run on the caller's thread: callers share rows among threads of their own.
#include <math.h>
#include <stdint.h>

#include <algorithm>
#include <exception>
#include <vector>

#include "dispatch.h"
#include "kernels_common.h"
#include "phases.h"
#include "states.h"

#define FLASHHEAD_EXPORT extern "C" __attribute__((visibility("default")))

namespace flashhead {
namespace {

constexpr int64_t kRowsAtOnce = 256;
// Rows lie one after another: the one to fetch while one is scored.
constexpr int64_t kAhead = 8;

struct Found {
  float product;
  int64_t row;
  float reach;
};

// Later rows and lesser products sink; the top of the heap is the one to give up next.
bool Better(const Found& a, const Found& b) {
  return a.product > b.product || (a.product == b.product && a.row < b.row);
}

double Norm(const float* values, int64_t width) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(values[i]) * values[i];
  return sqrt(sum);
}

Codes KindOf(int bits) { return bits == 4 ? Codes::kInt4 : Codes::kInt8; }

template <class Work>
int Guard(Work work) {
  try {
    work();
    return 0;
  } catch (const std::exception&) {  // memory
    return 1;
  }
}

}  // namespace
}  // namespace flashhead

using namespace flashhead;  // NOLINT: the file's own namespace, around C functions

FLASHHEAD_EXPORT int flashhead_abi() { return 5; }

FLASHHEAD_EXPORT const char* flashhead_kernels() { return CurrentKernels()->name; }

FLASHHEAD_EXPORT int flashhead_use_kernels(const char* name) { return UseKernels(name) ? 0 : 1; }

// Begins to time the phases of heads in this process, from zero, or ends it.
FLASHHEAD_EXPORT void flashhead_time_phases(int on) { TimePhases(on != 0); }

// Nanoseconds [3] of centroids, selection and rows since then, summed over the calls whose number is returned.
FLASHHEAD_EXPORT int64_t flashhead_phase_times(int64_t* nanoseconds) {
  const PhaseTimes times = CurrentPhaseTimes();
  std::copy_n(times.nanoseconds, static_cast<int>(kPhases), nanoseconds);
  return times.calls;
}

// Products of `rows` low-bit rows with the states: out[b * rows + r].
FLASHHEAD_EXPORT int flashhead_scan(const uint8_t* codes, const uint16_t* scales, int bits, int64_t rows,
                                    int64_t width, const float* states, int64_t batch, float* out) {
  return Guard([&] {
    States prepared;
    prepared.Assign(states, batch, width, true);
    std::vector<float*> places(batch);
    for (int64_t b = 0; b < batch; ++b) places[b] = out + b * rows;
    CurrentKernels()->rows_low_bit(codes, scales, KindOf(bits), rows, (width + kBlock - 1) / kBlock,
                                   prepared.pointers(), batch, places.data(), kAhead);
  });
}

// The best `count` of `rows` low-bit rows for every state, best first, and how far any other row can reach.
//
// With e = errors[r] >= |row - what its codes stand for| and norm the greatest length of any row that codes stand for,
// the exact product of a row is at most its reach: its low-bit product + e * |state| + norm * (what rounding the state
// moved + the rounding of the sums here, at most (blocks + 24) * 2^-24 * |state|). rest[b] is the greatest reach of the
// rows that are not returned.
FLASHHEAD_EXPORT int flashhead_scan_best(const uint8_t* codes, const uint16_t* scales, int bits,
                                         const float* errors, const float* bias, float norm, int64_t rows,
                                         int64_t width, const float* states, int64_t batch, int64_t count,
                                         int64_t* ids, float* products, float* reaches, float* rest) {
  return Guard([&] {
    const int64_t blocks = (width + kBlock - 1) / kBlock;
    States prepared;
    prepared.Assign(states, batch, width, true);
    std::vector<float> chunk(batch * kRowsAtOnce);
    std::vector<float*> places(batch);
    std::vector<std::vector<Found>> heaps(batch);
    std::vector<float> lengths(batch), slack(batch);
    for (int64_t b = 0; b < batch; ++b) {
      places[b] = chunk.data() + b * kRowsAtOnce;
      heaps[b].reserve(count + 1);
      const double length = Norm(states + b * width, width);
      const double moved = 0.5 * prepared[b].scale * sqrt(static_cast<double>(width));
      lengths[b] = static_cast<float>(length * (1 + 0x1p-20));
      // Bias and products are added in float too: two more roundings of sums no longer than |row| |state| + |bias|.
      slack[b] = static_cast<float>((moved + length * static_cast<double>(blocks + 24) * 0x1p-24) * norm * (1 + 0x1p-20));
      rest[b] = -INFINITY;
    }
    for (int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
      const int64_t part = std::min(kRowsAtOnce, rows - begin);
      CurrentKernels()->rows_low_bit(codes + begin * blocks * 4 * bits, scales + begin * blocks, KindOf(bits), part, blocks,
                                     prepared.pointers(), batch, places.data(), kAhead);
      for (int64_t b = 0; b < batch; ++b) {
        auto& heap = heaps[b];
        for (int64_t r = 0; r < part; ++r) {
          const float shift = bias ? bias[begin + r] : 0;
          const float product = places[b][r] + shift;
          const float reach = product + errors[begin + r] * lengths[b] + slack[b] +
                              (fabsf(product) + fabsf(shift)) * 0x1p-21f;
          if (product != product) {  // of a state or row that is not finite: nothing can be proven, nothing is sorted
            rest[b] = product;
            continue;
          }
          const bool full = static_cast<int64_t>(heap.size()) == count;
          if (full && !(product > heap.front().product)) {  // later rows lose ties
            rest[b] = std::max(rest[b], reach);
            continue;
          }
          heap.push_back({product, begin + r, reach});
          std::push_heap(heap.begin(), heap.end(), Better);
          if (full) {
            std::pop_heap(heap.begin(), heap.end(), Better);
            rest[b] = std::max(rest[b], heap.back().reach);
            heap.pop_back();
          }
        }
      }
    }
    for (int64_t b = 0; b < batch; ++b) {
      std::sort(heaps[b].begin(), heaps[b].end(), Better);
      for (int64_t i = 0; i < count; ++i) {
        const bool there = i < static_cast<int64_t>(heaps[b].size());
        ids[b * count + i] = there ? heaps[b][i].row : -1;
        products[b * count + i] = there ? heaps[b][i].product : -INFINITY;
        reaches[b * count + i] = there ? heaps[b][i].reach : -INFINITY;
      }
    }
  });
}
