// What greedy steps do after estimates of all candidates: the logits of those that can be the token.
#pragma once

#include <vector>

#include "estimates.h"
#include "head_call.h"
#include "states.h"

namespace flashhead {

class Rescoring {
 public:
  // Memory that a thread keeps between calls.
  struct Scratch {
    std::vector<std::vector<int32_t>> places;  // [B]: candidates to score, ascending
    std::vector<std::vector<float>> exact;     // [B]: their products
    Pieces pieces;                             // of places
  };

  // `opened` [B, opened] are the clusters whose candidates have estimates for logits, without scale and soft-cap.
  Rescoring(const HeadCall& call, const States& states, const int32_t* opened, Scratch& scratch);

  // Writes the tokens, and logits in place of estimates.
  void operator()();

 private:
  float* Logits(int64_t state) const { return call_.out.candidate_logits + state * head_.candidates(); }
  int64_t RowOf(int64_t state, int64_t place) const;
  void Score();
  void ScoreSome(int64_t state, int64_t begin, int64_t end);
  void AddPossible(int64_t state);
  void Finish(int64_t state);

  const HeadCall& call_;
  const Head& head_;
  const States& states_;
  const int32_t* opened_;
  Scratch& scratch_;
};

}  // namespace flashhead
