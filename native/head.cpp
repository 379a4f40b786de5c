#include "head.h"

#include <math.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "estimates.h"
#include "kernels.h"
#include "phases.h"
#include "select.h"
#include "states.h"

namespace flashhead {
namespace {

// What greedy decoding returns where every logit is NaN, as the graph of standard operators does.
constexpr int64_t kNoToken = int64_t{1} << 30;
// Bytes of rows in a task: short enough to share among threads evenly, long enough to make the hand-over cheap.
constexpr int64_t kTaskBytes = 96 << 10;
constexpr int64_t kRescoredAtOnce = 8, kCentroidsAtOnce = 32, kScoresAtOnce = 1024;
// Centroids of the best estimates whose errors are looked at.
constexpr int64_t kCheckedCentroids = 64;
// Rows of a cluster between two rounds of prefetching.
constexpr int64_t kRowsAtOnce = 8;
// Centroids lie one after another: the one to fetch while one is scored.
constexpr int64_t kAhead = 8;

// An opened cluster of a state: where its candidates stand.
struct Opening {
  int32_t state, position;
};

struct Best {
  float logit = -INFINITY;
  int64_t token = kNoToken;
  void Take(float other, int64_t id) {
    if (other > logit || (other == logit && id < token)) {
      logit = other;
      token = id;
    }
  }
};

// Memory that a thread keeps between calls.
struct Scratch {
  States states;
  std::vector<float> projected;                 // [B, r]
  States narrow;                                // of those
  std::vector<float> selection;                 // [B, K]
  std::vector<std::vector<int32_t>> likely;     // [B]: centroids to score, ascending
  std::vector<int32_t> opened;                  // [B, opened]
  std::vector<int32_t> first;                   // [T + 1]: a cluster's openings
  std::vector<Opening> openings;                // [B * opened], by cluster
  std::vector<std::pair<int32_t, int32_t>> groups;  // cluster, its first opening
  std::vector<Best> best;                       // [B, opened]
  std::vector<std::vector<int32_t>> rescored;   // [B]: places of candidates, ascending
  std::vector<std::vector<float>> exact;        // [B]: their products
  Pieces pieces;                                // of likely or rescored
};

class Run {
 public:
  Run(const Head& head, const float* values, int64_t batch, const HeadOutputs& out, Pool& pool, Scratch& scratch)
      : head_(head), batch_(batch), out_(out), pool_(pool), scratch_(scratch), kernels_(*CurrentKernels()) {
    blocks_ = Ceiling(head.width, kBlock);
    estimated_ = head.greedy && head.low_codes && head.rescored < head.candidates();
    estimated_centroids_ = head.greedy && head.centroid_high && head.probes < head.clusters;
    scratch_.states.Assign(values, batch, head.width, estimated_ || (head.coded_centroids && !head.projection));
    centroid_width_ = head.width;
    if (head.projection) {
      centroid_width_ = head.rank;
      scratch_.projected.assign(batch * head.rank, 0.0f);
      for (int64_t b = 0; b < batch; ++b) {
        kernels_.columns_f32(head.projection, head.rank, head.width, head.rank, values + b * head.width,
                             scratch_.projected.data() + b * head.rank);
      }
      scratch_.narrow.Assign(scratch_.projected.data(), batch, head.rank, head.coded_centroids);
    }
    centroid_states_ = head.projection ? &scratch_.narrow : &scratch_.states;
    scratch_.selection.resize(batch * head.clusters);
    scratch_.opened.resize(batch * head.opened());
    scratch_.best.assign(batch * head.opened(), Best{});
  }

  void operator()() {
    const int64_t row_bytes =
        head_.coded_centroids ? Ceiling(centroid_width_, kBlock) * BlockBytes(head_.centroid_kind) : centroid_width_ * 4;
    centroid_blocks_ = Ceiling(centroid_width_, kBlock);
    centroids_at_once_ = std::max<int64_t>(16, kTaskBytes / row_bytes);
    Parallel<&Run::ScoreCentroids>(Ceiling(head_.clusters, centroids_at_once_));
    if (estimated_centroids_) RefineCentroids();
    if (head_.scale != 1 || head_.softcap != 0) Parallel<&Run::ActivateScores>(batch_ * Ceiling(head_.clusters, kScoresAtOnce));
    clock_.End(kScoreCentroids);
    Parallel<&Run::Select>(batch_);
    GroupByCluster();
    clock_.End(kSelectClusters);
    const int64_t bytes = estimated_ ? blocks_ * BlockBytes(head_.low_kind) : head_.rows.row_bytes();
    const int64_t cluster_bytes = head_.cluster_size * bytes;
    groups_at_once_ = std::max<int64_t>(1, kTaskBytes / cluster_bytes);
    Parallel<&Run::ScoreClusters>(Ceiling(static_cast<int64_t>(scratch_.groups.size()), groups_at_once_));
    if (estimated_) {
      scratch_.rescored.resize(batch_);
      scratch_.exact.resize(batch_);
      Parallel<&Run::SelectBestEstimates>(batch_);
      Rescore();
      Parallel<&Run::SelectPossible>(batch_);
      Rescore();
      Parallel<&Run::FinishRescored>(batch_);
    } else {
      FinishExact();
    }
    clock_.End(kScoreRows);
  }

 private:
  template <void (Run::*kStep)(int64_t)>
  void Parallel(int64_t count) {
    pool_.Run(static_cast<size_t>(count),
              [](void* run, size_t i) { (static_cast<Run*>(run)->*kStep)(static_cast<int64_t>(i)); }, this);
  }

  float* Selection(int64_t state) { return scratch_.selection.data() + state * head_.clusters; }

  // Stage 1 for a run of centroids: products with the bias, and what selection compares; or estimates of both.
  void ScoreCentroids(int64_t task) {
    const int64_t begin = task * centroids_at_once_;
    const int64_t count = std::min(centroids_at_once_, head_.clusters - begin), blocks = centroid_blocks_;
    thread_local std::vector<float*> out;
    out.resize(batch_);
    for (int64_t b = 0; b < batch_; ++b) out[b] = Selection(b) + begin;
    const States& states = *centroid_states_;
    if (!head_.coded_centroids) {
      const auto* columns = static_cast<const float*>(head_.centroids) + begin;
      for (int64_t b = 0; b < batch_; ++b) {
        std::fill_n(out[b], count, 0.0f);
        kernels_.columns_f32(columns, head_.clusters, centroid_width_, count, states[b].values, out[b]);
      }
    } else if (estimated_centroids_) {
      kernels_.rows_low_bit(head_.centroid_high + begin * blocks * BlockBytes(Codes::kHighNibbles),
                            head_.centroid_scales + begin * blocks, Codes::kHighNibbles, count, blocks,
                            states.pointers(), batch_, out.data(), kAhead);
    } else {
      ScoreCodes(begin, count, states.pointers(), batch_, out.data());
    }
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t k = 0; k < count; ++k) SetCentroid(b, begin + k, out[b][k]);
    }
  }

  const uint8_t* CentroidCodes(int64_t first) const {
    return static_cast<const uint8_t*>(head_.centroids) + first * centroid_blocks_ * BlockBytes(head_.centroid_kind);
  }

  void ScoreCodes(int64_t first, int64_t count, const State* const* states, int64_t state_count, float* const* out) {
    kernels_.rows_low_bit(CentroidCodes(first), head_.centroid_scales + first * centroid_blocks_, head_.centroid_kind,
                          count, centroid_blocks_, states, state_count, out, count == 1 ? 0 : kAhead);
  }

  // The product of one centroid with a state; no bias.
  float CentroidProduct(int64_t state, int64_t centroid) {
    float product = 0, *place = &product;
    ScoreCodes(centroid, 1, centroid_states_->pointers() + state, 1, &place);
    return product;
  }

  void PrefetchCentroid(int64_t centroid) const {
    StoredRows::PrefetchBytes(CentroidCodes(centroid), centroid_blocks_ * BlockBytes(head_.centroid_kind));
  }

  // From a product without the bias.
  void SetCentroid(int64_t state, int64_t centroid, float product) {
    product += head_.centroid_bias[centroid];
    out_.cluster_scores[state * head_.clusters + centroid] = product;
    Selection(state)[centroid] = product + head_.selection_offset[centroid];
  }

  void ActivateScores(int64_t task) {
    const int64_t tasks = Ceiling(head_.clusters, kScoresAtOnce), begin = task % tasks * kScoresAtOnce;
    kernels_.activate(out_.cluster_scores + task / tasks * head_.clusters + begin,
                      std::min(kScoresAtOnce, head_.clusters - begin), head_.scale, head_.softcap);
  }

  // Exact products of the centroids that may be among the best, after estimates of all.
  void RefineCentroids() {
    scratch_.likely.resize(batch_);
    Parallel<&Run::SelectLikelyCentroids>(batch_);
    scratch_.pieces.Cut(scratch_.likely, kCentroidsAtOnce);
    Parallel<&Run::RefineSome>(scratch_.pieces.count());
  }

  void SelectLikelyCentroids(int64_t state) {
    auto& likely = scratch_.likely[state];
    const float* estimates = Selection(state);
    const int64_t best = std::min(head_.clusters, std::max(head_.probes, kCheckedCentroids));
    likely.resize(best);
    SelectBest(estimates, head_.clusters, best, likely.data());
    thread_local std::vector<float> scores;
    scores.clear();
    for (const int32_t k : likely) scores.push_back(estimates[k]);
    const auto last = scores.begin() + (head_.probes - 1);
    std::nth_element(scores.begin(), last, scores.end(), std::greater<float>());
    const int64_t step = best / std::min(best, kCheckedCentroids);
    for (int64_t i = 0; i < best; i += step) PrefetchCentroid(likely[i]);
    Errors errors;
    for (int64_t i = 0; i < best; i += step) {
      const int32_t k = likely[i];
      errors.Add(CentroidProduct(state, k) + head_.centroid_bias[k] + head_.selection_offset[k] - estimates[k]);
    }
    likely.resize(head_.clusters);
    likely.resize(kernels_.at_least(estimates, head_.clusters, *last - errors.Reach(), likely.data()));
  }

  void RefineSome(int64_t task) {
    const auto [state, begin, end] = scratch_.pieces[task];
    const auto& likely = scratch_.likely[state];
    for (int64_t i = begin; i < end; ++i) PrefetchCentroid(likely[i]);
    for (int64_t i = begin; i < end; ++i) SetCentroid(state, likely[i], CentroidProduct(state, likely[i]));
  }

  void Select(int64_t state) {
    int32_t* opened = scratch_.opened.data() + state * head_.opened();
    SelectBest(Selection(state), head_.clusters, head_.probes, opened);
    for (int64_t i = 0; i < head_.always; ++i) opened[head_.probes + i] = static_cast<int32_t>(head_.clusters + i);
  }

  // Brings the openings of all states together by cluster, so that a row is read once for all that open it.
  void GroupByCluster() {
    const int64_t opened = head_.opened(), total = head_.clusters + head_.always;
    scratch_.groups.clear();
    scratch_.openings.resize(batch_ * opened);
    if (batch_ == 1) {
      for (int32_t i = 0; i < opened; ++i) {
        scratch_.groups.emplace_back(scratch_.opened[i], i);
        scratch_.openings[i] = {0, i};
      }
      return;
    }
    auto& first = scratch_.first;
    first.assign(total + 1, 0);
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t i = 0; i < opened; ++i) ++first[scratch_.opened[b * opened + i] + 1];
    }
    for (int64_t t = 0; t < total; ++t) {
      if (first[t + 1]) scratch_.groups.emplace_back(static_cast<int32_t>(t), first[t]);
      first[t + 1] += first[t];
    }
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t i = 0; i < opened; ++i) {
        const int32_t cluster = scratch_.opened[b * opened + i];
        scratch_.openings[first[cluster]++] = {static_cast<int32_t>(b), static_cast<int32_t>(i)};
      }
    }
  }

  // Stage 2 for a run of opened clusters: ids, and logits, or estimates of products.
  void ScoreClusters(int64_t task) {
    const auto& groups = scratch_.groups;
    const int64_t size = head_.cluster_size;
    const int64_t begin = task * groups_at_once_;
    const int64_t end = std::min<int64_t>(begin + groups_at_once_, static_cast<int64_t>(groups.size()));
    thread_local std::vector<const State*> states;
    thread_local std::vector<float*> out;
    for (int64_t g = begin; g < end; ++g) {
      const int64_t cluster = groups[g].first, row = cluster * size;
      const Opening* openings = scratch_.openings.data() + groups[g].second;
      const int64_t next = g + 1 < static_cast<int64_t>(groups.size()) ? groups[g + 1].second
                                                                        : batch_ * head_.opened();
      const int64_t count = next - groups[g].second;
      states.resize(count);
      out.resize(count);
      for (int64_t i = 0; i < count; ++i) {
        states[i] = &scratch_.states[openings[i].state];
        out[i] = out_.candidate_logits + openings[i].state * head_.candidates() + openings[i].position * size;
      }
      const int64_t next_row = g + 1 < end ? groups[g + 1].first * size : row;
      if (estimated_) {
        EstimateRows(row, size, states.data(), count, out.data(), next_row - row);
      } else {
        ScoreExactly(row, next_row, states.data(), count, out.data());
      }
      for (int64_t i = 0; i < count; ++i) FinishCluster(row, openings[i], out[i]);
    }
  }

  // Clusters lie apart, so the processor's own prefetching starts anew at each of them: while one is scored, the next is
  // fetched, from `next_row` on.
  void ScoreExactly(int64_t row, int64_t next_row, const State* const* states, int64_t state_count, float* const* out) {
    thread_local std::vector<float*> places;
    places.assign(out, out + state_count);
    for (int64_t c = 0; c < head_.cluster_size; c += kRowsAtOnce) {
      const int64_t part = std::min(kRowsAtOnce, head_.cluster_size - c);
      if (next_row != row) Prefetch(next_row + c, part);
      ExactRows(row + c, part, states, state_count, places.data());
      for (float*& place : places) place += part;
    }
  }

  void Prefetch(int64_t row, int64_t count) {
    if (!head_.rows_by_token) return head_.rows.Prefetch(row, count);
    for (int64_t r = row; r < row + count; ++r) {
      if (head_.token_order[r] >= 0) head_.rows.Prefetch(ExactRow(r), 1);
    }
  }

  // The row of a slot that has a token, where slots have rows of their own or not.
  int64_t ExactRow(int64_t slot) const { return head_.rows_by_token ? head_.token_order[slot] : slot; }

  void EstimateRows(int64_t row, int64_t count, const State* const* states, int64_t state_count, float* const* out,
                    int64_t ahead) {
    kernels_.rows_low_bit(head_.low_codes + row * blocks_ * BlockBytes(head_.low_kind), head_.low_scales + row * blocks_,
                          head_.low_kind, count, blocks_, states, state_count, out, ahead);
  }

  void ExactRows(int64_t row, int64_t count, const State* const* states, int64_t state_count, float* const* out) {
    if (!head_.rows_by_token) return head_.rows.Score(kernels_, row, count, states, state_count, out);
    thread_local std::vector<float*> places;
    places.assign(out, out + state_count);
    for (int64_t r = row; r < row + count; ++r) {
      if (head_.token_order[r] >= 0) head_.rows.Score(kernels_, ExactRow(r), 1, states, state_count, places.data());
      for (float*& place : places) ++place;
    }
  }

  void FinishCluster(int64_t row, Opening opening, float* logits) {
    const int64_t size = head_.cluster_size;
    int64_t* ids = out_.candidate_ids + opening.state * head_.candidates() + opening.position * size;
    if (head_.row_bias) {
      for (int64_t c = 0; c < size; ++c) logits[c] += head_.row_bias[row + c];
    }
    if (!estimated_) kernels_.activate(logits, size, head_.scale, head_.softcap);
    Best& best = scratch_.best[opening.state * head_.opened() + opening.position];
    for (int64_t c = 0; c < size; ++c) {
      ids[c] = head_.token_order[row + c];
      if (ids[c] < 0) logits[c] = -INFINITY;
      else if (!estimated_) best.Take(logits[c], ids[c]);
    }
  }

  void FinishExact() {
    for (int64_t b = 0; b < batch_; ++b) {
      Best best;
      for (int64_t i = 0; i < head_.opened(); ++i) {
        const Best& other = scratch_.best[b * head_.opened() + i];
        best.Take(other.logit, other.token);
      }
      out_.token_ids[b] = best.token;
    }
  }

  float* Logits(int64_t state) const { return out_.candidate_logits + state * head_.candidates(); }

  void SelectBestEstimates(int64_t state) {
    scratch_.rescored[state].resize(head_.rescored);
    SelectBest(Logits(state), head_.candidates(), head_.rescored, scratch_.rescored[state].data());
  }

  int64_t RowOf(int64_t state, int64_t place) const {
    const int64_t size = head_.cluster_size;
    return scratch_.opened[state * head_.opened() + place / size] * size + place % size;
  }

  // Exact products of the candidates in `rescored`.
  void Rescore() {
    for (int64_t b = 0; b < batch_; ++b) scratch_.exact[b].resize(scratch_.rescored[b].size());
    scratch_.pieces.Cut(scratch_.rescored, kRescoredAtOnce);
    Parallel<&Run::RescoreSome>(scratch_.pieces.count());
  }

  void RescoreSome(int64_t task) {
    const auto [state, begin, end] = scratch_.pieces[task];
    const auto& places = scratch_.rescored[state];
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
      if (head_.source && cache.Get(*head_.source, row, &one)) {
        one.Score(kernels_, 0, 1, scratch_.states.pointers() + state, 1, &product);
      } else {
        ExactRows(row, 1, scratch_.states.pointers() + state, 1, &product);
      }
      if (head_.row_bias) *product += head_.row_bias[row];
    }
  }

  // After the best estimates were checked: all other candidates that may be the best nevertheless.
  void SelectPossible(int64_t state) {
    auto& places = scratch_.rescored[state];
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
    const int64_t found = kernels_.at_least(estimates, head_.candidates(), limit, possible.data());
    both.clear();
    std::set_union(places.begin(), places.end(), possible.begin(), possible.begin() + found, std::back_inserter(both));
    places.assign(both.begin(), both.end());
  }

  // The token, and estimates kept below its logit: no candidate that was not checked may look better.
  void FinishRescored(int64_t state) {
    float* logits = Logits(state);
    const int64_t* ids = out_.candidate_ids + state * head_.candidates();
    const auto& places = scratch_.rescored[state];
    for (size_t i = 0; i < places.size(); ++i) logits[places[i]] = scratch_.exact[state][i];
    kernels_.activate(logits, head_.candidates(), head_.scale, head_.softcap);
    if (head_.scale != 1 || head_.softcap != 0) {  // which move minus infinity
      for (int64_t i = 0; i < head_.candidates(); ++i) logits[i] = ids[i] < 0 ? -INFINITY : logits[i];
    }
    Best best;
    for (const int32_t place : places) {
      if (ids[place] >= 0) best.Take(logits[place], ids[place]);
    }
    out_.token_ids[state] = best.token;
    const float limit = nextafterf(best.logit, -INFINITY);
    int64_t begin = 0;
    for (size_t i = 0; i <= places.size(); ++i) {
      const int64_t end = i < places.size() ? places[i] : head_.candidates();
      for (int64_t place = begin; place < end; ++place) logits[place] = std::min(logits[place], limit);
      begin = end + 1;
    }
  }

  PhaseClock clock_;
  const Head& head_;
  const int64_t batch_;
  const HeadOutputs& out_;
  Pool& pool_;
  Scratch& scratch_;
  const Kernels& kernels_;
  const States* centroid_states_ = nullptr;
  int64_t centroid_blocks_ = 0;
  int64_t blocks_ = 0, centroid_width_ = 0, centroids_at_once_ = 0, groups_at_once_ = 0;
  bool estimated_ = false, estimated_centroids_ = false;
};

}  // namespace

void RunHead(const Head& head, const float* states, int64_t batch, const HeadOutputs& outputs, Pool& pool) {
  thread_local Scratch scratch;
  Run(head, states, batch, outputs, pool, scratch)();
}

}  // namespace flashhead
