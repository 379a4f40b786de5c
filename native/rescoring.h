// What greedy steps do after estimates of all candidates: the logits of those that can be the token.
#pragma once

#include <vector>

#include "estimates.h"
#include "head_call.h"
#include "states.h"

namespace flashhead {

class Rescoring {
 public:
  // Candidates of every state, ascending, and their products; logits in the end.
  struct Checked {
    std::vector<std::vector<int32_t>> places;
    std::vector<std::vector<float>> exact;

    void Resize(int64_t batch) {
      places.resize(batch);
      exact.resize(batch);
    }
    void Put(int64_t state, float* logits) const {
      for (size_t i = 0; i < places[state].size(); ++i) logits[places[state][i]] = exact[state][i];
    }
  };
  // Memory that a thread keeps between calls.
  struct Scratch {
    Checked best, others;  // estimates
    Pieces pieces;
  };

  // `opened` [B, opened] are the clusters whose candidates have estimates for logits, without scale and soft-cap.
  Rescoring(const HeadCall& call, const States& states, const int32_t* opened, Scratch& scratch);

  // Writes the tokens, and logits in place of estimates.
  void operator()();

 private:
  float* Logits(int64_t state) const { return call_.out.candidate_logits + state * head_.candidates(); }
  int64_t RowOf(int64_t state, int64_t place) const;
  void Score(Checked& checked);
  void ScoreSome(int64_t state, const int32_t* places, int64_t count, float* products);
  void SelectOthers(int64_t state);
  void Finish(int64_t state);

  const HeadCall& call_;
  const Head& head_;
  const States& states_;
  const int32_t* opened_;
  Scratch& scratch_;
};

}  // namespace flashhead
