#include "head.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "centroid_stage.h"
#include "dispatch.h"
#include "phases.h"
#include "rescoring.h"

namespace flashhead {
namespace {

// Rows of a cluster between two rounds of prefetching.
constexpr int64_t kRowsAtOnce = 8;

// An opened cluster of a state: where its candidates stand.
struct Opening {
  int32_t state, position;
};

// Memory that a thread keeps between calls.
struct Scratch {
  States states;
  CentroidStage::Scratch centroids;
  std::vector<int32_t> opened;                      // [B, opened]
  std::vector<int32_t> first;                       // [T + 1]: a cluster's openings
  std::vector<Opening> openings;                    // [B * opened], by cluster
  std::vector<std::pair<int32_t, int32_t>> groups;  // cluster, its first opening
  std::vector<Best> best;                           // [B, opened]
  Rescoring::Scratch rescoring;
};

class Run {
 public:
  Run(const HeadCall& call, const float* values, Scratch& scratch)
      : call_(call), head_(call.head), scratch_(scratch), blocks_(Ceiling(head_.width, kBlock)) {
    estimated_ = head_.greedy && head_.low_codes && head_.rescored < head_.candidates();
    scratch.states.Assign(values, call.batch, head_.width,
                          estimated_ || (head_.coded_centroids && !head_.projection));
    scratch.opened.resize(call.batch * head_.opened());
    scratch.best.assign(call.batch * head_.opened(), Best{});
  }

  void operator()() {
    CentroidStage centroids(call_, scratch_.states, scratch_.centroids);
    centroids.Score();
    clock_.End(kScoreCentroids);
    call_.Parallel(call_.batch, [&](int64_t state) {
      centroids.Select(state, scratch_.opened.data() + state * head_.opened());
    });
    GroupByCluster();
    clock_.End(kSelectClusters);
    const int64_t bytes = estimated_ ? blocks_ * BlockBytes(head_.low_kind) : head_.rows.row_bytes();
    const int64_t at_once = std::max<int64_t>(1, kTaskBytes / (head_.cluster_size * bytes));
    const auto count = static_cast<int64_t>(scratch_.groups.size());
    call_.Parallel(Ceiling(count, at_once), [&](int64_t task) {
      ScoreClusters(task * at_once, std::min(count, (task + 1) * at_once));
    });
    if (estimated_) {
      Rescoring(call_, scratch_.states, scratch_.opened.data(), scratch_.rescoring)();
    } else {
      Finish();
    }
    clock_.End(kScoreRows);
  }

 private:
  // Brings the openings of all states together by cluster, so that a row is read once for all that open it.
  void GroupByCluster() {
    const int64_t opened = head_.opened(), total = head_.clusters + head_.always;
    scratch_.groups.clear();
    scratch_.openings.resize(call_.batch * opened);
    if (call_.batch == 1) {
      for (int32_t i = 0; i < opened; ++i) {
        scratch_.groups.emplace_back(scratch_.opened[i], i);
        scratch_.openings[i] = {0, i};
      }
      return;
    }
    auto& first = scratch_.first;
    first.assign(total + 1, 0);
    for (int64_t b = 0; b < call_.batch; ++b) {
      for (int64_t i = 0; i < opened; ++i) ++first[scratch_.opened[b * opened + i] + 1];
    }
    for (int64_t t = 0; t < total; ++t) {
      if (first[t + 1]) scratch_.groups.emplace_back(static_cast<int32_t>(t), first[t]);
      first[t + 1] += first[t];
    }
    for (int64_t b = 0; b < call_.batch; ++b) {
      for (int64_t i = 0; i < opened; ++i) {
        const int32_t cluster = scratch_.opened[b * opened + i];
        scratch_.openings[first[cluster]++] = {static_cast<int32_t>(b), static_cast<int32_t>(i)};
      }
    }
  }

  // Stage 2 for a run of opened clusters: ids, and logits, or estimates of products.
  void ScoreClusters(int64_t begin, int64_t end) {
    const auto& groups = scratch_.groups;
    const int64_t size = head_.cluster_size;
    thread_local std::vector<const State*> states;
    thread_local std::vector<float*> out;
    for (int64_t g = begin; g < end; ++g) {
      const int64_t cluster = groups[g].first, row = cluster * size;
      const Opening* openings = scratch_.openings.data() + groups[g].second;
      const int64_t next = g + 1 < static_cast<int64_t>(groups.size()) ? groups[g + 1].second
                                                                        : call_.batch * head_.opened();
      const int64_t count = next - groups[g].second;
      states.resize(count);
      out.resize(count);
      for (int64_t i = 0; i < count; ++i) {
        states[i] = &scratch_.states[openings[i].state];
        out[i] = call_.out.candidate_logits + openings[i].state * head_.candidates() + openings[i].position * size;
      }
      const int64_t next_row = g + 1 < end ? groups[g + 1].first * size : row;
      StoredRows::PrefetchBytes(head_.token_order + next_row, size * 4);
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
    call_.kernels.rows_low_bit(head_.low_codes + row * blocks_ * BlockBytes(head_.low_kind), head_.low_scales + row * blocks_,
                          head_.low_kind, count, blocks_, states, state_count, out, ahead);
  }

  void ExactRows(int64_t row, int64_t count, const State* const* states, int64_t state_count, float* const* out) {
    if (!head_.rows_by_token) return head_.rows.Score(call_.kernels, row, count, states, state_count, out);
    thread_local std::vector<float*> places;
    places.assign(out, out + state_count);
    for (int64_t r = row; r < row + count; ++r) {
      if (head_.token_order[r] >= 0) head_.rows.Score(call_.kernels, ExactRow(r), 1, states, state_count, places.data());
      for (float*& place : places) ++place;
    }
  }

  void FinishCluster(int64_t row, Opening opening, float* logits) {
    const int64_t size = head_.cluster_size;
    int64_t* ids = call_.out.candidate_ids + opening.state * head_.candidates() + opening.position * size;
    if (head_.row_bias) {
      for (int64_t c = 0; c < size; ++c) logits[c] += head_.row_bias[row + c];
    }
    if (!estimated_) call_.kernels.activate(logits, size, head_.scale, head_.softcap);
    Best& best = scratch_.best[opening.state * head_.opened() + opening.position];
    for (int64_t c = 0; c < size; ++c) {
      ids[c] = head_.token_order[row + c];
      if (ids[c] < 0) logits[c] = -INFINITY;
      else if (!estimated_) best.Take(logits[c], ids[c]);
    }
  }

  void Finish() {
    for (int64_t b = 0; b < call_.batch; ++b) {
      Best best;
      for (int64_t i = 0; i < head_.opened(); ++i) {
        const Best& other = scratch_.best[b * head_.opened() + i];
        best.Take(other.logit, other.token);
      }
      call_.out.token_ids[b] = best.token;
    }
  }

  const HeadCall& call_;
  const Head& head_;
  Scratch& scratch_;
  PhaseClock clock_;
  const int64_t blocks_;
  bool estimated_ = false;
};

}  // namespace

void RunHead(const Head& head, const float* states, int64_t batch, const HeadOutputs& outputs, Pool& pool) {
  thread_local Scratch scratch;
  Run({head, outputs, batch, pool, *CurrentKernels()}, states, scratch)();
}

}  // namespace flashhead
