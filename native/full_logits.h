// Logits of the whole vocabulary: exact ones of candidates, estimates of tokens whose clusters stay closed.
#pragma once

#include "head.h"

namespace flashhead {

struct Columns {
  int64_t width = 0;                         // W
  const int32_t* cluster_of_token = nullptr;  // [W]: a place in the table, or -1 where a column is no token
  int64_t clusters = 0, places = 0;           // K, T
  const float* estimate_offset = nullptr;     // [K]
  float margin = 0;                           // relative step by which estimates stay below the best exact logit
};

// What the two stages found for B states, and the best logits over all devices that share the vocabulary.
struct Found {
  int64_t batch, candidates;       // B, M
  const int64_t* candidate_ids;    // [B, M], -1 for none
  const float* candidate_logits;   // [B, M]
  const float* products;           // [B, K]
  const float* best;               // [B]
};

// Writes all of logits [B, W], of the given type.
void FillLogits(const Columns& columns, const Found& found, RowType type, void* logits, Pool& pool);

}  // namespace flashhead
