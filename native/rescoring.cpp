#include "rescoring.h"

#include <math.h>

#include <algorithm>
#include <iterator>

#include "select.h"

namespace flashhead {
namespace {

constexpr int64_t kRowsAtOnce = 4;

}  // namespace

Rescoring::Rescoring(const HeadCall& call, const States& states, const int32_t* opened, Scratch& scratch)
    : call_(call), head_(call.head), states_(states), opened_(opened), scratch_(scratch) {}

void Rescoring::operator()() {
  scratch_.best.Resize(call_.batch);
  scratch_.others.Resize(call_.batch);
  call_.Parallel(call_.batch, [&](int64_t state) {
    scratch_.best.places[state].resize(head_.rescored);
    SelectBest(Logits(state), head_.candidates(), head_.rescored, scratch_.best.places[state].data());
  });
  Score(scratch_.best);
  call_.Parallel(call_.batch, [&](int64_t state) { SelectOthers(state); });
  Score(scratch_.others);
  call_.Parallel(call_.batch, [&](int64_t state) { Finish(state); });
}

int64_t Rescoring::RowOf(int64_t state, int64_t place) const {
  const int64_t size = head_.cluster_size;
  return opened_[state * head_.opened() + place / size] * size + place % size;
}

// Exact products of candidates.
void Rescoring::Score(Checked& checked) {
  for (int64_t b = 0; b < call_.batch; ++b) checked.exact[b].resize(checked.places[b].size());
  scratch_.pieces.Cut(checked.places, kRowsAtOnce);
  call_.Parallel(scratch_.pieces.count(), [&](int64_t task) {
    const auto [state, begin, end] = scratch_.pieces[task];
    ScoreSome(state, checked.places[state].data() + begin, end - begin, checked.exact[state].data() + begin);
  });
}

void Rescoring::ScoreSome(int64_t state, const int32_t* places, int64_t count, float* products) {
  thread_local RowCache cache;
  for (int64_t i = 0; i < count && !head_.source; ++i) {  // all misses at once, not one after another
    head_.rows.Prefetch(RowOf(state, places[i]), 1);
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = RowOf(state, places[i]);
    float* product = products + i;
    if (head_.token_order[row] < 0) {
      *product = -INFINITY;
      continue;
    }
    StoredRows one;
    const bool alone = head_.source && cache.Get(*head_.source, row, &one);
    (alone ? one : head_.rows).Score(call_.kernels, alone ? 0 : row, 1, states_.pointers() + state, 1, &product);
    if (head_.row_bias) *product += head_.row_bias[row];
  }
}

// After the best estimates were checked: all other candidates that may be the best nevertheless.
void Rescoring::SelectOthers(int64_t state) {
  const auto& places = scratch_.best.places[state];
  const auto& exact = scratch_.best.exact[state];
  auto& others = scratch_.others.places[state];
  others.clear();
  const float* estimates = Logits(state);
  float best = -INFINITY;
  Errors errors;
  for (size_t i = 0; i < places.size(); ++i) {
    if (exact[i] == -INFINITY) continue;
    errors.Add(exact[i] - estimates[places[i]]);
    best = std::max(best, exact[i]);
  }
  if (!errors.count) return;
  thread_local std::vector<int32_t> possible;
  possible.resize(head_.candidates());
  const int64_t found = call_.kernels.at_least(estimates, head_.candidates(), best - errors.Reach(kDeviations),
                                               possible.data());
  std::set_difference(possible.begin(), possible.begin() + found, places.begin(), places.end(),
                      std::back_inserter(others));
}

// The token, and estimates kept below its logit: no candidate that was not checked may look better.
void Rescoring::Finish(int64_t state) {
  float* logits = Logits(state);
  const int64_t* ids = call_.out.candidate_ids + state * head_.candidates();
  Checked* const lists[] = {&scratch_.best, &scratch_.others};
  for (const Checked* list : lists) list->Put(state, logits);
  call_.kernels.activate(logits, head_.candidates(), head_.scale, head_.softcap);
  if (head_.scale != 1 || head_.softcap != 0) {  // which move minus infinity
    for (int64_t i = 0; i < head_.candidates(); ++i) logits[i] = ids[i] < 0 ? -INFINITY : logits[i];
  }
  Best best;
  for (Checked* list : lists) {
    for (size_t i = 0; i < list->places[state].size(); ++i) {
      const int32_t place = list->places[state][i];
      list->exact[state][i] = logits[place];
      if (ids[place] >= 0) best.Take(logits[place], ids[place]);
    }
  }
  call_.out.token_ids[state] = best.token;
  const float limit = nextafterf(best.logit, -INFINITY);
  for (int64_t i = 0; i < head_.candidates(); ++i) logits[i] = std::min(logits[i], limit);
  for (const Checked* list : lists) list->Put(state, logits);
}

}  // namespace flashhead
