#include "products.h"

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "kernels_common.h"
#include "norm.h"
#include "share.h"

namespace flashhead {
namespace {

// Products that are not worth another thread.
constexpr int64_t kFewProducts = 1 << 16;
// Rows of a task: a multiple of every kernel's own.
constexpr int64_t kTaskRows = 32;
// States go through the weight by tiles of kMaxStates, whose codes stay in the nearest caches; so many are rounded at once.
constexpr int64_t kMostTiles = 8;

template <class Number>
Number* Room(std::vector<Number>* memory, int64_t count) {
  if (static_cast<int64_t>(memory->size()) < count) memory->resize(static_cast<size_t>(count));
  return memory->data();
}

// Rounds the states of a weight of this shape, a few tiles at a time, and calls work(tile, its first state, first row,
// end of the rows) for all states and rows; `products` are those of a state.
template <class Work>
void OverTiles(const BlockWeight& shape, const float* states, int64_t count, int64_t width, int64_t products,
               const Kernels& kernels, Pool& pool, const Work& work) {
  static thread_local std::vector<int8_t> codes;
  static thread_local std::vector<float> scales;
  static thread_local std::vector<int32_t> sums;
  const int64_t blocks = shape.blocks, most = std::min(count, kMostTiles * kMaxStates);
  int8_t* const code = Room(&codes, most * blocks * kBlock);
  float* const scale = Room(&scales, most * blocks);
  int32_t* const sum = Room(&sums, most * blocks);
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t now = std::min(count - begin, most);
    const auto tile = [=](int64_t number) {
      const int64_t first = number * kMaxStates;
      return RoundedStates{std::min(kMaxStates, now - first), code + first * blocks * kBlock, scale + first * blocks,
                           sum + first * blocks};
    };
    const int64_t tiles = (now + kMaxStates - 1) / kMaxStates, tasks = (shape.rows + kTaskRows - 1) / kTaskRows;
    const bool alone = now * products < kFewProducts;
    Share(pool, tiles, alone || tiles == 1, [&](int64_t number) {
      kernels.round_states(states + (begin + number * kMaxStates) * width, width, shape.bits, tile(number));
    });
    Share(pool, tiles * tasks, alone, [&](int64_t i) {
      const int64_t number = i / tasks, first = i % tasks * kTaskRows;
      work(tile(number), begin + number * kMaxStates, first, std::min(first + kTaskRows, shape.rows));
    });
  }
}

const Kernels& KernelsFor(int64_t rows) {
  const Kernels& fast = *CurrentKernels();
  return rows < fast.product_rows ? *ScalarKernels() : fast;
}

}  // namespace

void AddResidual(const Residual& residual, const float* states, int64_t count, int64_t width, float* sums,
                 float* normalized, Pool& pool) {
  Share(pool, count, count * width < kFewProducts, [&](int64_t i) {
    const float *own = states + i * width, *stream = residual.stream + i * width;
    float *sum = sums + i * width, *out = normalized + i * width;
    if (residual.branch_norm) {
      Normalize(own, residual.branch_norm, residual.branch_epsilon, width, out);
      own = out;
    }
    for (int64_t k = 0; k < width; ++k) sum[k] = stream[k] + own[k];
    Normalize(sum, residual.norm, residual.epsilon, width, out);
  });
}

void RunProducts(const BlockWeight& weight, const float* states, int64_t count, int64_t width, float* out, Pool& pool) {
  const Kernels& kernels = KernelsFor(weight.rows);
  OverTiles(weight, states, count, width, weight.rows * width, kernels, pool,
            [&](const RoundedStates& tile, int64_t state, int64_t first, int64_t end) {
              kernels.products(weight, first, end, tile, out + state * weight.rows + first, weight.rows);
            });
}

void RunGated(const BlockWeight& gate, const BlockWeight& up, Activation activation, const float* states, int64_t count,
              int64_t width, float* out, Pool& pool) {
  const Kernels& kernels = KernelsFor(gate.rows);
  OverTiles(gate, states, count, width, 2 * gate.rows * width, kernels, pool,
            [&](const RoundedStates& tile, int64_t state, int64_t first, int64_t end) {
              alignas(64) float gates[kMaxStates * kTaskRows], ups[kMaxStates * kTaskRows];
              kernels.products(gate, first, end, tile, gates, kTaskRows);
              kernels.products(up, first, end, tile, ups, kTaskRows);
              for (int64_t s = 0; s < tile.count; ++s) {
                kernels.gate(gates + s * kTaskRows, ups + s * kTaskRows, end - first, activation,
                             out + (state + s) * gate.rows + first);
              }
            });
}

}  // namespace flashhead
