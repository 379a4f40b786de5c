// Full-width logits for ctypes (flashhead_edge/native/full_logits.py has the same structures).
#include <math.h>

#include <exception>
#include <vector>

#include "full_logits.h"
#include "head.h"
#include "team.h"

#define FLASHHEAD_EXPORT extern "C" __attribute__((visibility("default")))

using namespace flashhead;  // NOLINT: the file's own namespace, around C functions

// A head's tables, and the threads to use. Types are those of RowType: 0 float32, 1 float16, 2 bfloat16.
struct FlashheadTables {
  int64_t hidden_size, clusters, places, cluster_size, probes, width;
  const uint8_t* centroid_codes;  // [K, blocks, 32]
  const uint16_t* centroid_scales;  // [K, blocks] in half precision
  const float* centroid_bias;     // [K]
  const float* selection_offset;  // [K]
  const float* estimate_offset;   // [K]
  const void* rows;               // [W, H]
  const int32_t* token_order;     // [T, C]
  const int32_t* cluster_of_token;  // [W]
  const float* row_bias;            // [T, C] or null
  int64_t type;                     // of rows and logits
  float margin;
  ParallelRegion region;
  int64_t threads;
};

template <class Work>
static int Guard(Work work) {
  try {
    work();
    return 0;
  } catch (const std::exception&) {  // memory
    return 1;
  }
}

// Both stages: candidates [B, M], products [B, K], and the best logit of each state [B], NaN if one is.
FLASHHEAD_EXPORT int flashhead_candidates(const FlashheadTables* tables, const float* states, int64_t batch,
                                          int64_t* ids, float* logits, float* products, float* best) {
  return Guard([&] {
    Head head;
    head.width = tables->hidden_size;
    head.clusters = tables->clusters;
    head.cluster_size = tables->cluster_size;
    head.always = tables->places - tables->clusters;
    head.probes = tables->probes;
    head.coded_centroids = true;
    head.centroid_kind = Codes::kInt8;
    head.centroids = tables->centroid_codes;
    head.centroid_scales = tables->centroid_scales;
    head.centroid_bias = tables->centroid_bias;
    head.selection_offset = tables->selection_offset;
    head.rows = {static_cast<RowType>(tables->type), tables->rows, tables->hidden_size};
    head.rows_by_token = true;
    head.token_order = tables->token_order;
    head.row_bias = tables->row_bias;
    std::vector<int64_t> tokens(batch);
    Team team(tables->region, tables->threads);
    RunHead(head, states, batch, {tokens.data(), ids, logits, products}, team);
    for (int64_t b = 0; b < batch; ++b) {
      best[b] = -INFINITY;
      for (const float* at = logits + b * head.candidates(); at < logits + (b + 1) * head.candidates(); ++at) {
        best[b] = *at > best[b] || *at != *at ? *at : best[b];
      }
    }
  });
}

// All columns [B, W], from what flashhead_candidates found and the best logits of all devices.
FLASHHEAD_EXPORT int flashhead_fill_logits(const FlashheadTables* tables, const int64_t* ids, const float* candidates,
                                           const float* products, const float* best, int64_t batch, void* logits) {
  return Guard([&] {
    Columns columns;
    columns.width = tables->width;
    columns.cluster_of_token = tables->cluster_of_token;
    columns.clusters = tables->clusters;
    columns.places = tables->places;
    columns.estimate_offset = tables->estimate_offset;
    columns.margin = tables->margin;
    const int64_t count = (tables->probes + tables->places - tables->clusters) * tables->cluster_size;
    Team team(tables->region, tables->threads);
    FillLogits(columns, {batch, count, ids, candidates, products, best}, static_cast<RowType>(tables->type), logits,
               team);
  });
}
