#include "head.h"

#include <math.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "dispatch.h"
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
constexpr int64_t kRescoredAtOnce = 8;
// Rows of a cluster between two rounds of prefetching.
constexpr int64_t kRowsAtOnce = 8;

int64_t Ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
  std::vector<int32_t> opened;                  // [B, opened]
  std::vector<int32_t> first;                   // [T + 1]: a cluster's openings
  std::vector<Opening> openings;                // [B * opened], by cluster
  std::vector<std::pair<int32_t, int32_t>> groups;  // cluster, its first opening
  std::vector<Best> best;                       // [B, opened]
  std::vector<int32_t> rescored;                // [B, N]
};

class Run {
 public:
  Run(const Head& head, const float* values, int64_t batch, const HeadOutputs& out, Pool& pool, Scratch& scratch)
      : head_(head), batch_(batch), out_(out), pool_(pool), scratch_(scratch), kernels_(*CurrentKernels()) {
    blocks_ = Ceiling(head.width, kBlock);
    low_bit_ = head.low_bits != 0 && head.rescored < head.candidates();
    const bool coded = head.centroid_bits != 32;
    scratch_.states.Assign(values, batch, head.width, low_bit_ || (coded && !head.projection));
    centroid_width_ = head.width;
    if (head.projection) {
      centroid_width_ = head.rank;
      scratch_.projected.assign(batch * head.rank, 0.0f);
      for (int64_t b = 0; b < batch; ++b) {
        kernels_.columns_f32(head.projection, head.rank, head.width, head.rank, values + b * head.width,
                             scratch_.projected.data() + b * head.rank);
      }
      scratch_.narrow.Assign(scratch_.projected.data(), batch, head.rank, coded);
    }
    scratch_.selection.resize(batch * head.clusters);
    scratch_.opened.resize(batch * head.opened());
    scratch_.best.assign(batch * head.opened(), Best{});
  }

  void operator()() {
    const int64_t row_bytes =
        head_.centroid_bits == 32 ? centroid_width_ * 4 : Ceiling(centroid_width_, kBlock) * 4 * head_.centroid_bits;
    centroids_at_once_ = std::max<int64_t>(16, kTaskBytes / row_bytes);
    Parallel<&Run::ScoreCentroids>(Ceiling(head_.clusters, centroids_at_once_));
    clock_.End(kScoreCentroids);
    Parallel<&Run::Select>(batch_);
    GroupByCluster();
    clock_.End(kSelectClusters);
    const int64_t cluster_bytes = head_.cluster_size * (low_bit_ ? blocks_ * 4 * head_.low_bits
                                                                 : head_.rows.row_bytes());
    groups_at_once_ = std::max<int64_t>(1, kTaskBytes / cluster_bytes);
    Parallel<&Run::ScoreClusters>(Ceiling(static_cast<int64_t>(scratch_.groups.size()), groups_at_once_));
    if (low_bit_) {
      scratch_.rescored.resize(batch_ * head_.rescored);
      Parallel<&Run::SelectForRescoring>(batch_);
      rescoring_tasks_ = Ceiling(head_.rescored, kRescoredAtOnce);
      Parallel<&Run::Rescore>(batch_ * rescoring_tasks_);
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

  // Stage 1 for a run of centroids: products with the bias, then scores and what selection compares.
  void ScoreCentroids(int64_t task) {
    const int64_t begin = task * centroids_at_once_;
    const int64_t count = std::min(centroids_at_once_, head_.clusters - begin);
    thread_local std::vector<float*> out;
    out.resize(batch_);
    for (int64_t b = 0; b < batch_; ++b) out[b] = Selection(b) + begin;
    const States& states = head_.projection ? scratch_.narrow : scratch_.states;
    const int64_t blocks = Ceiling(centroid_width_, kBlock);
    if (head_.centroid_bits == 32) {
      const auto* columns = static_cast<const float*>(head_.centroids) + begin;
      for (int64_t b = 0; b < batch_; ++b) {
        std::fill_n(out[b], count, 0.0f);
        kernels_.columns_f32(columns, head_.clusters, centroid_width_, count, states[b].values, out[b]);
      }
    } else {
      const auto* codes = static_cast<const uint8_t*>(head_.centroids) + begin * blocks * 4 * head_.centroid_bits;
      kernels_.rows_low_bit(codes, head_.centroid_scales + begin * blocks, head_.centroid_bits, count, blocks,
                            states.pointers(), batch_, out.data());
    }
    for (int64_t b = 0; b < batch_; ++b) {
      float* scores = out_.cluster_scores + b * head_.clusters + begin;
      for (int64_t k = 0; k < count; ++k) {
        const float product = out[b][k] + head_.centroid_bias[begin + k];
        scores[k] = product;
        out[b][k] = product + head_.selection_offset[begin + k];
      }
      kernels_.activate(scores, count, head_.scale, head_.softcap);
    }
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

  // Stage 2 for a run of opened clusters: ids, and logits (of low-bit rows: products, which stay to be compared).
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
      for (int64_t c = 0; c < size; c += kRowsAtOnce) {
        const int64_t part = std::min(kRowsAtOnce, size - c);
        if (g + 1 < end) Prefetch(groups[g + 1].first * size + c, part);
        if (low_bit_) {
          LowBitRows(row + c, part, states.data(), count, out.data());
        } else {
          ExactRows(row + c, part, states.data(), count, out.data());
        }
        for (int64_t i = 0; i < count; ++i) out[i] += part;
      }
      for (int64_t i = 0; i < count; ++i) FinishCluster(row, openings[i], out[i] - size);
    }
  }

  // Clusters lie apart, so the processor's own prefetching starts anew at each of them.
  void Prefetch(int64_t row, int64_t count) {
    if (low_bit_) {
      const int64_t row_bytes = blocks_ * 4 * head_.low_bits;
      StoredRows::PrefetchBytes(head_.low_codes + row * row_bytes, count * row_bytes);
      StoredRows::PrefetchBytes(head_.low_scales + row * blocks_, count * blocks_ * 4);
    } else if (head_.rows_by_token) {
      for (int64_t r = row; r < row + count; ++r) {
        if (head_.token_order[r] >= 0) head_.rows.Prefetch(ExactRow(r), 1);
      }
    } else {
      head_.rows.Prefetch(row, count);
    }
  }

  // The row of a slot that has a token, where slots have rows of their own or not.
  int64_t ExactRow(int64_t slot) const { return head_.rows_by_token ? head_.token_order[slot] : slot; }

  void LowBitRows(int64_t row, int64_t count, const State* const* states, int64_t state_count, float* const* out) {
    kernels_.rows_low_bit(head_.low_codes + row * blocks_ * 4 * head_.low_bits, head_.low_scales + row * blocks_,
                          head_.low_bits, count, blocks_, states, state_count, out);
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
    if (!low_bit_) kernels_.activate(logits, size, head_.scale, head_.softcap);
    Best& best = scratch_.best[opening.state * head_.opened() + opening.position];
    for (int64_t c = 0; c < size; ++c) {
      ids[c] = head_.token_order[row + c];
      if (ids[c] < 0) logits[c] = -INFINITY;
      else if (!low_bit_) best.Take(logits[c], ids[c]);
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

  int32_t* Rescored(int64_t state) { return scratch_.rescored.data() + state * head_.rescored; }

  void SelectForRescoring(int64_t state) {
    SelectBest(out_.candidate_logits + state * head_.candidates(), head_.candidates(), head_.rescored,
               Rescored(state));
  }

  int64_t RowOf(int64_t state, int64_t place) const {
    const int64_t size = head_.cluster_size;
    return scratch_.opened[state * head_.opened() + place / size] * size + place % size;
  }

  // Exact products of a few of a state's best candidates.
  void Rescore(int64_t task) {
    const int64_t state = task / rescoring_tasks_, begin = task % rescoring_tasks_ * kRescoredAtOnce;
    const int64_t end = std::min(begin + kRescoredAtOnce, head_.rescored);
    for (int64_t i = begin; i < end; ++i) {  // all misses at once, not one after another
      head_.rows.Prefetch(ExactRow(RowOf(state, Rescored(state)[i])), 1);
    }
    for (int64_t i = begin; i < end; ++i) {
      const int64_t place = Rescored(state)[i], row = RowOf(state, place);
      if (head_.token_order[row] < 0) continue;
      float* logit = out_.candidate_logits + state * head_.candidates() + place;
      ExactRows(row, 1, scratch_.states.pointers() + state, 1, &logit);
      if (head_.row_bias) *logit += head_.row_bias[row];
    }
  }

  // The token, and low-bit logits kept below its own: no candidate that was not rescored may look better.
  void FinishRescored(int64_t state) {
    float* logits = out_.candidate_logits + state * head_.candidates();
    const int64_t* ids = out_.candidate_ids + state * head_.candidates();
    kernels_.activate(logits, head_.candidates(), head_.scale, head_.softcap);
    if (head_.scale != 1 || head_.softcap != 0) {  // which move minus infinity
      for (int64_t i = 0; i < head_.candidates(); ++i) logits[i] = ids[i] < 0 ? -INFINITY : logits[i];
    }
    Best best;
    for (int64_t i = 0; i < head_.rescored; ++i) {
      const int64_t place = Rescored(state)[i];
      if (ids[place] >= 0) best.Take(logits[place], ids[place]);
    }
    out_.token_ids[state] = best.token;
    const float limit = nextafterf(best.logit, -INFINITY);
    int64_t begin = 0;
    for (int64_t i = 0; i <= head_.rescored; ++i) {
      const int64_t end = i < head_.rescored ? Rescored(state)[i] : head_.candidates();
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
  int64_t blocks_ = 0, centroid_width_ = 0, centroids_at_once_ = 0, groups_at_once_ = 0, rescoring_tasks_ = 0;
  bool low_bit_ = false;
};

}  // namespace

void RunHead(const Head& head, const float* states, int64_t batch, const HeadOutputs& outputs, Pool& pool) {
  thread_local Scratch scratch;
  Run(head, states, batch, outputs, pool, scratch)();
}

}  // namespace flashhead
