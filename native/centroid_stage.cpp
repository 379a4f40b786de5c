#include "centroid_stage.h"

#include <algorithm>

#include "select.h"

namespace flashhead {
namespace {

constexpr int64_t kCentroidsAtOnce = 32, kScoresAtOnce = 1024;
// Centroids, evenly spread, whose estimates are checked.
constexpr int64_t kChecked = 64;
// Centroids lie one after another: the one to fetch while one is scored.
constexpr int64_t kAhead = 8;

}  // namespace

CentroidStage::CentroidStage(const HeadCall& call, const States& states, Scratch& scratch)
    : call_(call),
      head_(call.head),
      scratch_(scratch),
      states_(head_.projection ? &scratch.narrow : &states),
      estimated_(head_.greedy && head_.centroid_high && head_.probes < head_.clusters),
      width_(head_.projection ? head_.rank : head_.width),
      blocks_(Ceiling(width_, kBlock)),
      step_(Ceiling(head_.clusters, kChecked)),
      checked_(Ceiling(head_.clusters, step_)) {
  scratch.selection.resize(call.batch * head_.clusters);
  scratch.errors.resize(call.batch * checked_);
  if (!head_.projection) return;
  scratch.projected.assign(call.batch * head_.rank, 0.0f);
  for (int64_t b = 0; b < call.batch; ++b) {
    call.kernels.columns_f32(head_.projection, head_.rank, head_.width, head_.rank, states[b].values,
                             scratch.projected.data() + b * head_.rank);
  }
  scratch.narrow.Assign(scratch.projected.data(), call.batch, head_.rank, head_.coded_centroids);
}

void CentroidStage::Score() {
  const int64_t row_bytes = head_.coded_centroids ? blocks_ * BlockBytes(head_.centroid_kind) : width_ * 4;
  const int64_t at_once = std::max<int64_t>(16, kTaskBytes / row_bytes);
  call_.Parallel(Ceiling(head_.clusters, at_once), [&](int64_t task) {
    ScoreSome(task * at_once, std::min(at_once, head_.clusters - task * at_once));
  });
  if (estimated_) Refine();
  if (head_.scale == 1 && head_.softcap == 0) return;
  const int64_t tasks = Ceiling(head_.clusters, kScoresAtOnce);
  call_.Parallel(call_.batch * tasks, [&](int64_t task) {
    const int64_t begin = task % tasks * kScoresAtOnce;
    call_.kernels.activate(call_.out.cluster_scores + task / tasks * head_.clusters + begin,
                           std::min(kScoresAtOnce, head_.clusters - begin), head_.scale, head_.softcap);
  });
}

void CentroidStage::Select(int64_t state, int32_t* opened) {
  SelectProbes(state, opened);
  for (int64_t i = 0; i < head_.always; ++i) opened[head_.probes + i] = static_cast<int32_t>(head_.clusters + i);
}

void CentroidStage::SelectProbes(int64_t state, int32_t* opened) {
  const float* scores = Selection(state);
  const auto few = estimated_ ? static_cast<int64_t>(scratch_.possible[state].size()) : 0;
  if (few < head_.probes) return SelectBest(scores, head_.clusters, head_.probes, opened);
  const auto& possible = scratch_.possible[state];
  thread_local std::vector<float> theirs;
  theirs.resize(few);
  for (int64_t i = 0; i < few; ++i) theirs[i] = scores[possible[i]];
  SelectBest(theirs.data(), few, head_.probes, opened);
  for (int64_t i = 0; i < head_.probes; ++i) opened[i] = possible[opened[i]];
}

// Products of a run of centroids with the bias, and what selection compares; or estimates of both.
void CentroidStage::ScoreSome(int64_t begin, int64_t count) {
  thread_local std::vector<float*> out;
  out.resize(call_.batch);
  for (int64_t b = 0; b < call_.batch; ++b) out[b] = Selection(b) + begin;
  if (!head_.coded_centroids) {
    const auto* columns = static_cast<const float*>(head_.centroids) + begin;
    for (int64_t b = 0; b < call_.batch; ++b) {
      std::fill_n(out[b], count, 0.0f);
      call_.kernels.columns_f32(columns, head_.clusters, width_, count, (*states_)[b].values, out[b]);
    }
  } else if (estimated_) {
    const auto kind = Codes::kHighNibbles;
    call_.kernels.rows_low_bit(head_.centroid_high + begin * blocks_ * BlockBytes(kind),
                               head_.centroid_scales + begin * blocks_, kind, count, blocks_, states_->pointers(),
                               call_.batch, out.data(), kAhead);
    CheckSome(begin, count);
  } else {
    ScoreCodes(begin, count, states_->pointers(), call_.batch, out.data());
  }
  for (int64_t b = 0; b < call_.batch; ++b) {
    for (int64_t k = 0; k < count; ++k) Set(b, begin + k, out[b][k]);
  }
}

// How far estimates are off that are products still.
void CentroidStage::CheckSome(int64_t begin, int64_t count) {
  const int64_t first = Ceiling(begin, step_), end = Ceiling(begin + count, step_);
  for (int64_t i = first; i < end; ++i) Prefetch(i * step_);
  for (int64_t i = first; i < end; ++i) {
    for (int64_t b = 0; b < call_.batch; ++b) {
      scratch_.errors[b * checked_ + i] = Product(b, i * step_) - Selection(b)[i * step_];
    }
  }
}

const uint8_t* CentroidStage::CodesOf(int64_t first) const {
  return static_cast<const uint8_t*>(head_.centroids) + first * blocks_ * BlockBytes(head_.centroid_kind);
}

void CentroidStage::ScoreCodes(int64_t first, int64_t count, const State* const* states, int64_t state_count,
                               float* const* out) {
  call_.kernels.rows_low_bit(CodesOf(first), head_.centroid_scales + first * blocks_, head_.centroid_kind, count, blocks_,
                             states, state_count, out, count == 1 ? 0 : kAhead);
}

// The product of one centroid with a state; no bias.
float CentroidStage::Product(int64_t state, int64_t centroid) {
  float product = 0, *place = &product;
  ScoreCodes(centroid, 1, states_->pointers() + state, 1, &place);
  return product;
}

void CentroidStage::Prefetch(int64_t centroid) const {
  StoredRows::PrefetchBytes(CodesOf(centroid), blocks_ * BlockBytes(head_.centroid_kind));
}

// From a product without the bias.
void CentroidStage::Set(int64_t state, int64_t centroid, float product) {
  product += head_.centroid_bias[centroid];
  call_.out.cluster_scores[state * head_.clusters + centroid] = product;
  Selection(state)[centroid] = product + head_.selection_offset[centroid];
}

// Exact products of the centroids that may or may not be among the best, after estimates of all.
void CentroidStage::Refine() {
  scratch_.possible.resize(call_.batch);
  scratch_.uncertain.resize(call_.batch);
  call_.Parallel(call_.batch, [&](int64_t state) { SelectUncertain(state); });
  scratch_.pieces.Cut(scratch_.uncertain, kCentroidsAtOnce);
  call_.Parallel(scratch_.pieces.count(), [&](int64_t task) {
    const auto [state, begin, end] = scratch_.pieces[task];
    const auto& uncertain = scratch_.uncertain[state];
    for (int64_t i = begin; i < std::min(begin + kAhead, end); ++i) Prefetch(uncertain[i]);
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) Prefetch(uncertain[i + kAhead]);
      Set(state, uncertain[i], Product(state, uncertain[i]));
    }
  });
}

void CentroidStage::SelectUncertain(int64_t state) {
  const float* estimates = Selection(state);
  Errors errors;
  for (int64_t i = 0; i < checked_; ++i) errors.Add(scratch_.errors[state * checked_ + i]);
  const float last = NthBest(estimates, head_.clusters, head_.probes), reach = errors.Reach(kCentroidDeviations);
  auto &possible = scratch_.possible[state], &uncertain = scratch_.uncertain[state];
  thread_local std::vector<int32_t> places;
  places.resize(head_.clusters);
  const int64_t count = call_.kernels.at_least(estimates, head_.clusters, last - reach, places.data());
  possible.assign(places.begin(), places.begin() + count);
  uncertain.resize(possible.size());
  size_t found = 0;
  for (const int32_t k : possible) {  // no branch that a processor has to guess
    uncertain[found] = k;
    found += !(estimates[k] > last + reach);
  }
  uncertain.resize(found);
}

}  // namespace flashhead
