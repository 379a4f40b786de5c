// Causal attention over a cache of keys and values, many query heads to one of those.
//
// A query's result has the same bits whatever stands beside it: other positions, other rows of the batch, any number of
// threads. Every product and sum is taken in an order that the query's own keys decide. A library's matrix product gives no
// such promise, and where a model rounds its states to few bits, the last bit of a sum decides how they round.
#pragma once

#include "head.h"

namespace flashhead {

// N = heads, G = key-value heads, D = head_dim; a step has `length` positions for each row of the batch.
struct Attention {
  int64_t batch = 0, length = 0, heads = 0, kv_heads = 0, head_dim = 0;
  const float* query = nullptr;  // [B, length, N * D], rows `query_stride` apart
  const float* key = nullptr;    // [B, length, G * D], rows `key_stride` apart; so are values
  const float* value = nullptr;
  int64_t query_stride = 0, key_stride = 0;
  const float* past_key = nullptr;  // [B, G, past_capacity, D]
  const float* past_value = nullptr;
  float* present_key = nullptr;  // [B, G, capacity, D]; may be the past itself
  float* present_value = nullptr;
  int64_t past_capacity = 0, capacity = 0;
  const int64_t* past = nullptr;   // positions before the step, [B]
  const int64_t* total = nullptr;  // positions with it, [B]; less than past + length where a row ends early
  const float* cosines = nullptr;  // rotary tables [positions, rotary / 2], or null
  const float* sines = nullptr;
  int64_t rotary = 0;       // leading numbers of a head that turn
  bool interleaved = false;  // pairs are neighbours; otherwise they are half of `rotary` apart
  const float* query_norm = nullptr;  // weights [D] of an RMS norm of every head before it turns, or null
  const float* key_norm = nullptr;
  float epsilon = 0;  // of the norms
  float scale = 1, softcap = 0;
  int64_t window = -1;  // keys that a query sees, itself included; -1 for all
};

// output [B, length, N * D]; zeros where a row has ended.
void RunAttention(const Attention& attention, float* output, Pool& pool);

}  // namespace flashhead
