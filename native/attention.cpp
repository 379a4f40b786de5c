#include "attention.h"

#include <string.h>

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "norm.h"
#include "share.h"

namespace flashhead {
namespace {

// Queries that read keys and values together: as many as the kernels hold in registers.
constexpr int64_t kTogether = 4;
// Products that are not worth another thread.
constexpr int64_t kFewProducts = 1 << 18;

void Turn(const Attention& a, int64_t position, const float* from, float* to) {
  const int64_t half = a.rotary / 2, step = a.interleaved ? 2 : 1, apart = a.interleaved ? 1 : half;
  const float* cosines = a.cosines + position * half;
  const float* sines = a.sines + position * half;
  for (int64_t i = 0; i < half; ++i) {
    const float first = from[i * step], second = from[i * step + apart];
    to[i * step] = first * cosines[i] - second * sines[i];
    to[i * step + apart] = second * cosines[i] + first * sines[i];
  }
  memcpy(to + a.rotary, from + a.rotary, static_cast<size_t>(a.head_dim - a.rotary) * sizeof(float));
}

// Keys and values of the positions before, where they have to move.
void CopyPast(const Attention& a, int64_t row, int64_t head) {
  const int64_t from = (row * a.kv_heads + head) * a.past_capacity * a.head_dim;
  const int64_t to = (row * a.kv_heads + head) * a.capacity * a.head_dim;
  const size_t bytes = static_cast<size_t>(a.past[row] * a.head_dim) * sizeof(float);
  if (!bytes) return;
  if (a.past_key != a.present_key) memcpy(a.present_key + to, a.past_key + from, bytes);
  if (a.past_value != a.present_value) memcpy(a.present_value + to, a.past_value + from, bytes);
}

// Normalize and turn a position's queries, and put its key and value into the cache.
void Enter(const Attention& a, int64_t row, int64_t place, float* queries) {
  const int64_t position = a.past[row] + place, width = a.head_dim;
  if (position >= a.total[row]) return;
  const size_t bytes = static_cast<size_t>(width) * sizeof(float);
  const int64_t token = row * a.length + place;
  static thread_local std::vector<float> normalized;
  normalized.resize(static_cast<size_t>(width));
  const auto turn = [&](const float* from, const float* norm, float* to) {
    if (norm) {
      Normalize(from, norm, a.epsilon, width, normalized.data());
      from = normalized.data();
    }
    a.rotary ? Turn(a, position, from, to) : static_cast<void>(memcpy(to, from, bytes));
  };
  for (int64_t h = 0; h < a.heads; ++h) {
    turn(a.query + token * a.query_stride + h * width, a.query_norm, queries + (token * a.heads + h) * width);
  }
  for (int64_t h = 0; h < a.kv_heads; ++h) {
    const int64_t to = ((row * a.kv_heads + h) * a.capacity + position) * width;
    const int64_t from = token * a.key_stride + h * width;
    turn(a.key + from, a.key_norm, a.present_key + to);
    memcpy(a.present_value + to, a.value + from, bytes);
  }
}

// Some queries of one row and key-value head: query i is that of head i % group at position i / group.
void Attend(const Attention& a, int64_t row, int64_t kv_head, int64_t first, int64_t count, const float* queries,
            float* output) {
  const Kernels& kernels = *CurrentKernels();
  const int64_t group = a.heads / a.kv_heads, width = a.head_dim;
  int64_t from[kTogether], to[kTogether], least = INT64_MAX, most = 0;
  State states[kTogether] = {};
  const State* pointers[kTogether];
  float* out[kTogether];
  int64_t open = 0;
  for (int64_t i = first; i < first + count; ++i) {
    const int64_t place = i / group, token = row * a.length + place;
    const int64_t offset = (token * a.heads + kv_head * group + i % group) * width;
    const int64_t end = a.past[row] + place + 1;
    if (end > a.total[row]) {
      memset(output + offset, 0, static_cast<size_t>(width) * sizeof(float));
      continue;
    }
    from[open] = a.window >= 0 ? std::max<int64_t>(0, end - a.window) : 0;
    to[open] = end;
    least = std::min(least, from[open]);
    most = std::max(most, end);
    states[open].values = queries + offset;
    pointers[open] = &states[open];
    out[open++] = output + offset;
  }
  if (!open) return;
  static thread_local std::vector<float> scores;
  const int64_t keys = most - least;
  if (static_cast<int64_t>(scores.size()) < kTogether * keys) scores.resize(static_cast<size_t>(kTogether * keys));
  float* weights[kTogether];
  for (int64_t i = 0; i < open; ++i) weights[i] = scores.data() + i * keys;
  const int64_t begin = ((row * a.kv_heads + kv_head) * a.capacity + least) * width;
  kernels.rows_f32(a.present_key + begin, keys, width, pointers, open, weights);
  for (int64_t i = 0; i < open; ++i) {
    float* own = weights[i] + from[i] - least;
    const int64_t seen = to[i] - from[i];
    kernels.activate(own, seen, a.scale, a.softcap);
    const float factor = 1.0f / kernels.exponentials(own, seen);
    for (int64_t k = 0; k < seen; ++k) own[k] *= factor;
    std::fill(weights[i], own, 0.0f);
    std::fill(own + seen, weights[i] + keys, 0.0f);
  }
  kernels.weighted_f32(a.present_value + begin, keys, width, weights, open, out);
}

}  // namespace

void RunAttention(const Attention& a, float* output, Pool& pool) {
  static thread_local std::vector<float> turned;
  turned.resize(static_cast<size_t>(a.batch * a.length * a.heads * a.head_dim));
  float* queries = turned.data();
  int64_t longest = 0;
  for (int64_t b = 0; b < a.batch; ++b) longest = std::max(longest, a.total[b]);
  const int64_t all = a.batch * a.length * a.heads;
  const bool alone = all * longest * a.head_dim < kFewProducts;
  if (a.past_key != a.present_key || a.past_value != a.present_value) {
    Share(pool, a.batch * a.kv_heads, alone, [&](int64_t i) { CopyPast(a, i / a.kv_heads, i % a.kv_heads); });
  }
  Share(pool, a.batch * a.length, alone, [&](int64_t i) { Enter(a, i / a.length, i % a.length, queries); });

  // One by one where there are few, so that every thread has some.
  const int64_t together = alone || all >= 16 * kTogether ? kTogether : 1;
  const int64_t own = a.length * (a.heads / a.kv_heads), units = (own + together - 1) / together;
  Share(pool, a.batch * a.kv_heads * units, alone, [&](int64_t i) {
    // The last positions have the most keys: first, so that no thread is left with them.
    const int64_t unit = units - 1 - i / (a.batch * a.kv_heads), head = i % (a.batch * a.kv_heads);
    const int64_t first = unit * together;
    Attend(a, head / a.kv_heads, head % a.kv_heads, first, std::min(together, own - first), queries, output);
  });
}

}  // namespace flashhead
