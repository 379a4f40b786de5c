// Single rows for ctypes (flashhead_edge/native/row_scorer.py has the same structure). They run on the caller's thread.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <vector>

#include "dispatch.h"
#include "row_cache.h"
#include "select.h"
#include "states.h"

#define FLASHHEAD_EXPORT extern "C" __attribute__((visibility("default")))

using namespace flashhead;  // NOLINT: the file's own namespace, around C functions

struct FlashheadRows {
  const void* rows;              // [N, H]; of int8 rows the high nibbles, [N, H / 32, 16]
  const uint8_t* low;            // of int8 rows the low nibbles, [N, H / 32, 16]
  const uint16_t* scales;        // and their scales, [N, H / 32]
  int64_t type;                  // of RowType: 0 float32, 1 float16, 3 int8
  int64_t count, width;          // N, H
  int64_t cluster_size;          // C: rows of a cluster, which stand together
  const float* bias;             // [N] or null
  const int32_t* slot_of_token;  // [V]: a token's row
  float scale, softcap;          // of logits; 0 for no soft-cap
  void* single;                  // what flashhead_open_rows made of the table
};

namespace {

enum Status { kDone, kNoMemory, kNoSuchRow, kNotFinite, kNotRead };

template <class Work>
int Guard(Work work) {
  try {
    return work();
  } catch (const std::exception&) {
    return kNoMemory;
  }
}

StoredRows Rows(const FlashheadRows& rows) {
  return {static_cast<RowType>(rows.type), rows.rows, rows.width, rows.low, rows.scales};
}

// For a few rows, which are read from the file of a mapped table and kept.
struct SingleRows {
  RowSource source;
  RowCache cache;
  std::mutex mutex;
};

// By bits: the compiler makes vectors of it.
bool HasNan(const float* values, int64_t count) {
  uint32_t greatest = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    memcpy(&bits, values + i, 4);
    greatest = std::max(greatest, bits & 0x7fffffffu);
  }
  return greatest > 0x7f800000u;
}

// Rows of a call that are single ones; more are read where they are mapped.
constexpr int64_t kFewRows = 256;

struct Scored {
  int64_t token;
  float logit;
};

}  // namespace

// Null where memory does not suffice.
FLASHHEAD_EXPORT void* flashhead_open_rows(const FlashheadRows* rows) {
  try {
    return new SingleRows{RowSource(Rows(*rows), rows->count, false), {}, {}};
  } catch (const std::exception&) {
    return nullptr;
  }
}

FLASHHEAD_EXPORT void flashhead_close_rows(void* single) { delete static_cast<SingleRows*>(single); }

// Products of single rows, [B, count] by number; minus infinity for numbers below 0.
FLASHHEAD_EXPORT int flashhead_score_rows(const FlashheadRows* rows, const int64_t* numbers, int64_t count,
                                          const float* states, int64_t batch, float* out) {
  return Guard([&] {
    for (int64_t i = 0; i < batch * count; ++i) {
      if (numbers[i] >= rows->count) return kNoSuchRow;
    }
    States prepared;
    prepared.Assign(states, batch, rows->width, false);
    const bool few = count <= kFewRows;
    auto& single = *static_cast<SingleRows*>(rows->single);
    std::unique_lock<std::mutex> lock(single.mutex, std::defer_lock);
    if (few) lock.lock();
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t number = numbers[b * count + i];
        float* place = out + b * count + i;
        *place = -INFINITY;
        if (number < 0) continue;
        StoredRows stored = Rows(*rows);
        if (few && !single.cache.Get(single.source, number, &stored)) return kNotRead;
        stored.Score(*CurrentKernels(), few ? 0 : number, 1, prepared.pointers() + b, 1, &place);
      }
    }
    return kDone;
  });
}

// The greedy token among a head's candidates [count] and some remembered tokens, ties to the lowest id.
//
// `token` is the head's own; candidates stand by cluster. Remembered ids below 0 are none. kept[0..wanted) are the
// likeliest of both, -1 where there are fewer.
FLASHHEAD_EXPORT int flashhead_best_token(const FlashheadRows* rows, const float* state, const int64_t* ids,
                                          const float* logits, int64_t count, int64_t token, const int64_t* remembered,
                                          int64_t remembered_count, int64_t wanted, int64_t* kept, int64_t* best) {
  return Guard([&] {
    const Kernels& kernels = *CurrentKernels();
    std::vector<int32_t> places(std::min(wanted, count));
    SelectBest(logits, count, static_cast<int64_t>(places.size()), places.data());
    std::vector<Scored> found;
    float highest = -INFINITY;
    for (const int32_t place : places) {
      highest = std::max(highest, logits[place]);
      if (ids[place] >= 0) found.push_back({ids[place], logits[place]});  // the others are padding
    }
    if (isinf(highest) || HasNan(logits, count)) return kNotFinite;
    std::vector<int64_t> others(remembered, remembered + remembered_count);
    std::sort(others.begin(), others.end());
    others.erase(std::unique(others.begin(), others.end()), others.end());
    // A candidate that is not among the candidates' likeliest is not among the likeliest of more.
    std::vector<bool> opened(rows->count / rows->cluster_size);
    for (int64_t c = 0; c < count; c += rows->cluster_size) {
      const int64_t* end = ids + std::min(c + rows->cluster_size, count);
      const int64_t* id = std::find_if(ids + c, end, [](int64_t id) { return id >= 0; });
      if (id != end) opened[rows->slot_of_token[*id] / rows->cluster_size] = true;
    }
    others.erase(std::remove_if(others.begin(), others.end(), [&](int64_t id) {
      return id < 0 || opened[rows->slot_of_token[id] / rows->cluster_size];
    }), others.end());

    States prepared;
    prepared.Assign(state, 1, rows->width, false);
    std::vector<float> products(others.size());
    {
      auto& single = *static_cast<SingleRows*>(rows->single);
      const std::lock_guard<std::mutex> lock(single.mutex);
      for (size_t i = 0; i < others.size(); ++i) {
        const int64_t slot = rows->slot_of_token[others[i]];
        StoredRows stored;
        if (!single.cache.Get(single.source, slot, &stored)) return kNotRead;
        float* place = &products[i];
        stored.Score(kernels, 0, 1, prepared.pointers(), 1, &place);
        if (rows->bias) *place += rows->bias[slot];
      }
    }
    kernels.activate(products.data(), static_cast<int64_t>(products.size()), rows->scale, rows->softcap);
    for (size_t i = 0; i < others.size(); ++i) {
      if (products[i] == products[i]) found.push_back({others[i], products[i]});
    }

    std::sort(found.begin(), found.end(), [](const Scored& a, const Scored& b) {
      return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
    });
    for (int64_t i = 0; i < wanted; ++i) {
      kept[i] = i < static_cast<int64_t>(found.size()) ? found[static_cast<size_t>(i)].token : -1;
    }
    const Scored& first = found.front();
    *best = first.logit > highest ? first.token : std::min(token, first.token);
    return kDone;
  });
}
