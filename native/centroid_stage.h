// Stage 1 of the head: the products of states with all centroids, and the clusters that each state opens.
//
// Greedy steps estimate the products from the high nibbles of int8 centroids, and compute those that may be among the
// best.
#pragma once

#include <vector>

#include "estimates.h"
#include "head_call.h"
#include "states.h"

namespace flashhead {

class CentroidStage {
 public:
  // Memory that a thread keeps between calls.
  struct Scratch {
    std::vector<float> projected;              // [B, r]
    States narrow;                             // of those
    std::vector<float> selection;              // [B, K]
    std::vector<std::vector<int32_t>> likely;  // [B]: centroids to score, ascending
    Pieces pieces;                             // of likely
  };

  CentroidStage(const HeadCall& call, const States& states, Scratch& scratch);

  // Writes the scores of all clusters.
  void Score();

  // Writes the clusters that a state opens, probes and always opened ones.
  void Select(int64_t state, int32_t* opened);

 private:
  float* Selection(int64_t state) { return scratch_.selection.data() + state * head_.clusters; }
  const uint8_t* CodesOf(int64_t first) const;
  void ScoreCodes(int64_t first, int64_t count, const State* const* states, int64_t state_count, float* const* out);
  float Product(int64_t state, int64_t centroid);
  void Prefetch(int64_t centroid) const;
  void Set(int64_t state, int64_t centroid, float product);
  void ScoreSome(int64_t begin, int64_t count);
  void SelectLikely(int64_t state);
  void Refine();

  const HeadCall& call_;
  const Head& head_;
  Scratch& scratch_;
  const States* states_;
  const bool estimated_;
  const int64_t width_, blocks_;
};

}  // namespace flashhead
