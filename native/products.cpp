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
// States go through the weight by tiles of kMaxStates, whose codes stay in the nearest caches; so many are rounded at once.
constexpr int64_t kMostTiles = 8;

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
  const int64_t blocks = weight.blocks, most = std::min(count, kMostTiles * kMaxStates);
  int8_t* const code = Room(&codes, most * blocks * kBlock);
  float* const scale = Room(&scales, most * blocks);
  int32_t* const sum = Room(&sums, most * blocks);
  for (; count > 0; count -= most, states += most * width, out += most * weight.rows) {
    const int64_t now = std::min(count, most);
    const auto tile = [=](int64_t number) {
      const int64_t first = number * kMaxStates;
      return RoundedStates{std::min(kMaxStates, now - first), code + first * blocks * kBlock, scale + first * blocks,
                           sum + first * blocks};
    };
    const int64_t tiles = (now + kMaxStates - 1) / kMaxStates, tasks = (weight.rows + kTaskRows - 1) / kTaskRows;
    const bool alone = now * weight.rows * width < kFewProducts;
    Share(pool, tiles, alone || tiles == 1, [&](int64_t number) {
      kernels.round_states(states + number * kMaxStates * width, width, weight.bits, tile(number));
    });
    Share(pool, tiles * tasks, alone, [&](int64_t i) {
      const int64_t number = i / tasks, first = i % tasks * kTaskRows;
      kernels.products(weight, first, std::min(first + kTaskRows, weight.rows), tile(number),
                       out + number * kMaxStates * weight.rows, weight.rows);
    });
  }
}

}  // namespace flashhead
