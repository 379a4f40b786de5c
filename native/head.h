// The two-stage head over tables that stay where they are: score centroids, open the best clusters, score their rows.
//
// Three steps where the table has low-bit rows too: those of the opened clusters are scored first, and only the best
// few again in full precision.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "stored_rows.h"

namespace flashhead {

// Runs task(argument, i) for i < count, on any threads, and returns when all are done.
class Pool {
 public:
  virtual ~Pool() = default;
  virtual void Run(size_t count, void (*task)(void*, size_t), void* argument) = 0;
};

// Sizes and places; docs/bundle-format.md has what they mean. T = clusters + always opened.
struct Head {
  int64_t width = 0, clusters = 0, cluster_size = 0, always = 0, probes = 0;
  int centroid_bits = 32;
  const void* centroids = nullptr;         // 4, 8: codes [K, blocks, 4 * bits]; 32: float [H, K]
  const float* centroid_scales = nullptr;  // [K, blocks], null for 32
  const float* centroid_bias = nullptr;    // [K]
  const float* selection_offset = nullptr;  // [K]
  int64_t rank = 0;                        // r where there is a projection: centroids then have r columns, not `width`
  const float* projection = nullptr;       // [H, r] or null
  StoredRows rows;                       // by slot, T * C of them; or by token, V
  bool rows_by_token = false;            // not with low-bit rows
  const int32_t* token_order = nullptr;  // [T, C], -1 for none
  const float* row_bias = nullptr;       // [T, C] or null
  int low_bits = 0;                      // 4 or 8 where the next two are there
  const uint8_t* low_codes = nullptr;    // [T, C, blocks, 4 * bits]
  const float* low_scales = nullptr;     // [T, C, blocks]
  int64_t rescored = 0;                  // candidates that get exact logits where there are low-bit rows
  float scale = 1, softcap = 0;

  int64_t opened() const { return probes + always; }
  int64_t candidates() const { return opened() * cluster_size; }
};

struct HeadOutputs {
  int64_t* token_ids;         // [B]
  int64_t* candidate_ids;     // [B, M]
  float* candidate_logits;    // [B, M]
  float* cluster_scores;      // [B, K]
};

void RunHead(const Head& head, const float* states, int64_t batch, const HeadOutputs& outputs, Pool& pool);

}  // namespace flashhead
