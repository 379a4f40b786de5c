#include "centroid_stage.h"

#include <algorithm>
#include <functional>

#include "select.h"

namespace flashhead {
namespace {

constexpr int64_t kCentroidsAtOnce = 32, kScoresAtOnce = 1024;
// Centroids of the best estimates whose errors are looked at.
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
      blocks_(Ceiling(width_, kBlock)) {
  scratch.selection.resize(call.batch * head_.clusters);
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
  SelectBest(Selection(state), head_.clusters, head_.probes, opened);
  for (int64_t i = 0; i < head_.always; ++i) opened[head_.probes + i] = static_cast<int32_t>(head_.clusters + i);
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
  } else {
    ScoreCodes(begin, count, states_->pointers(), call_.batch, out.data());
  }
  for (int64_t b = 0; b < call_.batch; ++b) {
    for (int64_t k = 0; k < count; ++k) Set(b, begin + k, out[b][k]);
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

// Exact products of the centroids that may be among the best, after estimates of all.
void CentroidStage::Refine() {
  scratch_.likely.resize(call_.batch);
  call_.Parallel(call_.batch, [&](int64_t state) { SelectLikely(state); });
  scratch_.pieces.Cut(scratch_.likely, kCentroidsAtOnce);
  call_.Parallel(scratch_.pieces.count(), [&](int64_t task) {
    const auto [state, begin, end] = scratch_.pieces[task];
    const auto& likely = scratch_.likely[state];
    for (int64_t i = begin; i < end; ++i) Prefetch(likely[i]);
    for (int64_t i = begin; i < end; ++i) Set(state, likely[i], Product(state, likely[i]));
  });
}

void CentroidStage::SelectLikely(int64_t state) {
  auto& likely = scratch_.likely[state];
  const float* estimates = Selection(state);
  const int64_t best = std::min(head_.clusters, std::max(head_.probes, kChecked));
  likely.resize(best);
  SelectBest(estimates, head_.clusters, best, likely.data());
  thread_local std::vector<float> scores;
  scores.clear();
  for (const int32_t k : likely) scores.push_back(estimates[k]);
  const auto last = scores.begin() + (head_.probes - 1);
  std::nth_element(scores.begin(), last, scores.end(), std::greater<float>());
  const int64_t step = best / std::min(best, kChecked);
  for (int64_t i = 0; i < best; i += step) Prefetch(likely[i]);
  Errors errors;
  for (int64_t i = 0; i < best; i += step) {
    const int32_t k = likely[i];
    errors.Add(Product(state, k) + head_.centroid_bias[k] + head_.selection_offset[k] - estimates[k]);
  }
  likely.resize(head_.clusters);
  likely.resize(call_.kernels.at_least(estimates, head_.clusters, *last - errors.Reach(), likely.data()));
}

}  // namespace flashhead
