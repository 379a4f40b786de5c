#include "rescoring.h"

#include <math.h>

#include <algorithm>
#include <iterator>

#include "select.h"

namespace flashhead {
namespace {

constexpr int64_t kRowsAtOnce = 8;

}  // namespace

Rescoring::Rescoring(const HeadCall& call, const States& states, const int32_t* opened, Scratch& scratch)
    : call_(call), head_(call.head), states_(states), opened_(opened), scratch_(scratch) {}

void Rescoring::operator()() {
  scratch_.places.resize(call_.batch);
  scratch_.exact.resize(call_.batch);
  call_.Parallel(call_.batch, [&](int64_t state) {
    scratch_.places[state].resize(head_.rescored);
    SelectBest(Logits(state), head_.candidates(), head_.rescored, scratch_.places[state].data());
  });
  Score();
  call_.Parallel(call_.batch, [&](int64_t state) { AddPossible(state); });
  Score();
  call_.Parallel(call_.batch, [&](int64_t state) { Finish(state); });
}

int64_t Rescoring::RowOf(int64_t state, int64_t place) const {
  const int64_t size = head_.cluster_size;
  return opened_[state * head_.opened() + place / size] * size + place % size;
}

// Exact products of the candidates in `places`.
void Rescoring::Score() {
  for (int64_t b = 0; b < call_.batch; ++b) scratch_.exact[b].resize(scratch_.places[b].size());
  scratch_.pieces.Cut(scratch_.places, kRowsAtOnce);
  call_.Parallel(scratch_.pieces.count(), [&](int64_t task) {
    const auto [state, begin, end] = scratch_.pieces[task];
    ScoreSome(state, begin, end);
  });
}

void Rescoring::ScoreSome(int64_t state, int64_t begin, int64_t end) {
  const auto& places = scratch_.places[state];
  thread_local RowCache cache;
  for (int64_t i = begin; i < end && !head_.source; ++i) {  // all misses at once, not one after another
    head_.rows.Prefetch(RowOf(state, places[i]), 1);
  }
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = RowOf(state, places[i]);
    float* product = &scratch_.exact[state][i];
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
void Rescoring::AddPossible(int64_t state) {
  auto& places = scratch_.places[state];
  const auto& exact = scratch_.exact[state];
  const float* estimates = Logits(state);
  float best = -INFINITY;
  Errors errors;
  for (size_t i = 0; i < places.size(); ++i) {
    if (exact[i] == -INFINITY) continue;
    errors.Add(exact[i] - estimates[places[i]]);
    best = std::max(best, exact[i]);
  }
  if (!errors.count) return;
  const float limit = best - errors.Reach();
  thread_local std::vector<int32_t> possible, both;
  possible.resize(head_.candidates());
  const int64_t found = call_.kernels.at_least(estimates, head_.candidates(), limit, possible.data());
  both.clear();
  std::set_union(places.begin(), places.end(), possible.begin(), possible.begin() + found, std::back_inserter(both));
  places.assign(both.begin(), both.end());
}

// The token, and estimates kept below its logit: no candidate that was not checked may look better.
void Rescoring::Finish(int64_t state) {
  float* logits = Logits(state);
  const int64_t* ids = call_.out.candidate_ids + state * head_.candidates();
  const auto& places = scratch_.places[state];
  for (size_t i = 0; i < places.size(); ++i) logits[places[i]] = scratch_.exact[state][i];
  call_.kernels.activate(logits, head_.candidates(), head_.scale, head_.softcap);
  if (head_.scale != 1 || head_.softcap != 0) {  // which move minus infinity
    for (int64_t i = 0; i < head_.candidates(); ++i) logits[i] = ids[i] < 0 ? -INFINITY : logits[i];
  }
  Best best;
  for (const int32_t place : places) {
    if (ids[place] >= 0) best.Take(logits[place], ids[place]);
  }
  call_.out.token_ids[state] = best.token;
  const float limit = nextafterf(best.logit, -INFINITY);
  int64_t begin = 0;
  for (size_t i = 0; i <= places.size(); ++i) {
    const int64_t end = i < places.size() ? places[i] : head_.candidates();
    for (int64_t place = begin; place < end; ++place) logits[place] = std::min(logits[place], limit);
    begin = end + 1;
  }
}

}  // namespace flashhead
