#include "full_logits.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "kernels.h"

namespace flashhead {
namespace {

// Columns of a task: their clusters stay in the first-level cache while the states of a batch pass over them.
constexpr int64_t kColumnsAtOnce = 4096;

uint32_t Bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

// Rounding to the nearest, ties to even.
void Store(float value, float* to) { *to = value; }

void Store(float value, BFloat16* to) {
  const uint32_t bits = Bits(value);
  to->bits = static_cast<uint16_t>(value != value ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

void Store(float value, uint16_t* to) {
  const uint32_t bits = Bits(value), size = bits & 0x7fffffff;
  uint32_t half;
  if (size > 0x7f800000) {
    half = 0x7e00;
  } else if (size >= 0x477ff000) {  // what rounds to more than the greatest
    half = 0x7c00;
  } else if (size < 0x38800000) {  // below the least normal number: adding 1/2 leaves 2^-24 as the last place
    const float shifted = fabsf(value) + 0.5f;
    half = Bits(shifted) - Bits(0.5f);
  } else {
    half = (size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13;
  }
  *to = static_cast<uint16_t>(half | (bits >> 16 & 0x8000));
}

template <class Element>
class Filling {
 public:
  Filling(const Columns& columns, const Found& found, Element* logits)
      : columns_(columns), found_(found), logits_(logits), tables_(found.batch * (columns.places + 1)) {}

  void operator()(Pool& pool) {
    Parallel<&Filling::Estimate>(pool, found_.batch);
    Parallel<&Filling::FillColumns>(pool, (columns_.width + kColumnsAtOnce - 1) / kColumnsAtOnce);
    Parallel<&Filling::Scatter>(pool, found_.batch);
  }

 private:
  template <void (Filling::*kStep)(int64_t)>
  void Parallel(Pool& pool, int64_t count) {
    pool.Run(static_cast<size_t>(count),
             [](void* self, size_t i) { (static_cast<Filling*>(self)->*kStep)(static_cast<int64_t>(i)); }, this);
  }

  Element* Table(int64_t state) { return tables_.data() + state * (columns_.places + 1); }

  // What every column of a cluster gets, in the place after the cluster's; the first is for columns without a token.
  // Always-scored tokens' clusters get no estimate: all of their columns are candidates.
  void Estimate(int64_t state) {
    Element* table = Table(state);
    Store(-INFINITY, table);
    for (int64_t place = columns_.clusters; place < columns_.places; ++place) Store(-INFINITY, table + 1 + place);
    const float best = found_.best[state];
    const float ceiling = best - std::max(fabsf(best), 1.0f) * columns_.margin;
    const float* products = found_.products + state * columns_.clusters;
    for (int64_t k = 0; k < columns_.clusters; ++k) {
      const float product = products[k] + columns_.estimate_offset[k];
      const bool below = product < ceiling || product != product || product == -INFINITY;
      Store(below ? product : ceiling, table + 1 + k);
    }
  }

  void FillColumns(int64_t task) {
    const int64_t begin = task * kColumnsAtOnce, end = std::min(begin + kColumnsAtOnce, columns_.width);
    const int32_t* cluster = columns_.cluster_of_token;
    for (int64_t state = 0; state < found_.batch; ++state) {
      const Element* table = Table(state) + 1;
      Element* __restrict logits = logits_ + state * columns_.width;
      for (int64_t w = begin; w < end; ++w) logits[w] = table[cluster[w]];
    }
  }

  void Scatter(int64_t state) {
    Element* logits = logits_ + state * columns_.width;
    const int64_t* ids = found_.candidate_ids + state * found_.candidates;
    const float* exact = found_.candidate_logits + state * found_.candidates;
    for (int64_t i = 0; i < found_.candidates; ++i) {
      if (ids[i] >= 0) Store(exact[i], logits + ids[i]);
    }
  }

  const Columns& columns_;
  const Found& found_;
  Element* logits_;
  std::vector<Element> tables_;
};

}  // namespace

void FillLogits(const Columns& columns, const Found& found, RowType type, void* logits, Pool& pool) {
  switch (type) {
    case RowType::kFloat32:
      return Filling<float>(columns, found, static_cast<float*>(logits))(pool);
    case RowType::kFloat16:
      return Filling<uint16_t>(columns, found, static_cast<uint16_t*>(logits))(pool);
    case RowType::kBFloat16:
      return Filling<BFloat16>(columns, found, static_cast<BFloat16*>(logits))(pool);
    case RowType::kNibbles:
      return;  // logits are floats
  }
}

}  // namespace flashhead
