// Stage 1 of the head: the products of states with all centroids, and the clusters that each state opens.
//
// Greedy steps estimate the products from the high nibbles of int8 centroids, and compute those of which it is not clear
// whether they are among the best.
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
    std::vector<float> projected;                 // [B, r]
    States narrow;                                // of those
    std::vector<float> selection;                 // [B, K]
    std::vector<float> errors;                    // [B, checked]: of estimates
    std::vector<std::vector<int32_t>> possible;   // [B]: centroids that may be among the best, ascending
    std::vector<std::vector<int32_t>> uncertain;  // [B]: and may not be
    Pieces pieces;                                // of uncertain
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
  void CheckSome(int64_t begin, int64_t count);
  void SelectUncertain(int64_t state);
  void SelectProbes(int64_t state, int32_t* opened);
  void Refine();

  const HeadCall& call_;
  const Head& head_;
  Scratch& scratch_;
  const States* states_;
  const bool estimated_;
  const int64_t width_, blocks_;
  const int64_t step_, checked_;  // every so many centroids, and how many of them
};

}  // namespace flashhead
