// The two-stage head over tables that stay where they are: score centroids, open the best clusters, score their rows.
//
// Where only the token is wanted, less is read: rows of the opened clusters are estimated from low-bit codes or from the
// high nibbles of int8 rows, and only those that can be the token are scored; int8 centroids likewise.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "row_cache.h"

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
  bool coded_centroids = false;
  Codes centroid_kind = Codes::kInt8;
  const void* centroids = nullptr;            // codes [K, blocks, BlockBytes], or float [H, K]
  const uint8_t* centroid_high = nullptr;     // high nibbles of int8 codes [K, blocks, 16], or null
  const uint16_t* centroid_scales = nullptr;  // of codes, in half precision: [K, blocks]
  const float* centroid_bias = nullptr;    // [K]
  const float* selection_offset = nullptr;  // [K]
  int64_t rank = 0;                        // r where there is a projection: centroids then have r columns, not `width`
  const float* projection = nullptr;       // [H, r] or null
  StoredRows rows;                       // by slot, T * C of them; or by token, V
  bool rows_by_token = false;            // not with estimates
  const RowSource* source = nullptr;     // where single rows come from; null for the table itself
  const int32_t* token_order = nullptr;  // [T, C], -1 for none
  const float* row_bias = nullptr;       // [T, C] or null
  Codes low_kind = Codes::kInt8;         // of what rows are estimated from, where it is there
  const uint8_t* low_codes = nullptr;    // [T, C, blocks, BlockBytes]
  const uint16_t* low_scales = nullptr;  // [T, C, blocks] in half precision
  bool greedy = false;                   // only the token is wanted: rows are estimated where they can be
  int64_t rescored = 0;                  // the best estimates that are always checked
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
