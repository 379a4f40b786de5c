#include "products.h"

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "kernels_common.h"
#include "share.h"

namespace flashhead {
namespace {

// Products that are not worth another thread.
constexpr int64_t kFewProducts = 1 << 16;
// Rows of a task: a multiple of every kernel's own.
constexpr int64_t kTaskRows = 32;

template <class Number>
Number* Room(std::vector<Number>* memory, int64_t count) {
  if (static_cast<int64_t>(memory->size()) < count) memory->resize(static_cast<size_t>(count));
  return memory->data();
}

}  // namespace

void RunProducts(const BlockWeight& weight, const float* states, int64_t count, int64_t width, float* out, Pool& pool) {
  const Kernels& fast = *CurrentKernels();
  const Kernels& kernels = weight.rows < fast.product_rows ? *ScalarKernels() : fast;
  static thread_local std::vector<int8_t> codes;
  static thread_local std::vector<float> scales;
  static thread_local std::vector<int32_t> sums;
  const int64_t blocks = weight.blocks;
  int8_t* const code = Room(&codes, count * blocks * kBlock);
  float* const scale = Room(&scales, count * blocks);
  int32_t* const sum = Room(&sums, count * blocks);
  // States go through the weight by tiles, whose codes stay in the nearest caches.
  const auto tile = [=](int64_t number) {
    const int64_t first = number * kMaxStates;
    return RoundedStates{std::min(kMaxStates, count - first), code + first * blocks * kBlock, scale + first * blocks,
                         sum + first * blocks};
  };
  const int64_t tiles = (count + kMaxStates - 1) / kMaxStates, tasks = (weight.rows + kTaskRows - 1) / kTaskRows;
  const bool alone = count * weight.rows * width < kFewProducts;
  Share(pool, tiles, alone || tiles == 1, [&](int64_t number) {
    kernels.round_states(states + number * kMaxStates * width, width, weight.bits, tile(number));
  });
  Share(pool, tiles * tasks, alone, [&](int64_t i) {
    const int64_t number = i / tasks, first = i % tasks * kTaskRows;
    kernels.products(weight, first, std::min(first + kTaskRows, weight.rows), tile(number),
                            out + number * kMaxStates * weight.rows, weight.rows);
  });
}

}  // namespace flashhead
