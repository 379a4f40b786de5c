// Products of states with weights in blocks of 32 codes, as `com.microsoft::MatMulNBits` computes them at accuracy level
// 4: states are rounded to 8 bits by block, a block's product is a whole number, and blocks are summed as floats.
//
// Weights are read as they lie in the file, and nothing is kept of them. All kernels give the same bits, and a state's
// results are the same whatever is computed beside it: blocks are added one after another,
//     sum = fma(product of block b, weight's scale of b * state's scale of b, sum), b = 0, 1, 2 ...
// and what is summed before is exact in 32 bits.
#pragma once

#include "head.h"
#include "kernels.h"

namespace flashhead {

// [rows, blocks * 32]; codes as in flashhead_edge/quantize.py, with a zero point for each block.
struct BlockWeight {
  int bits = 4;  // or 8
  int64_t rows = 0, blocks = 0;
  const uint8_t* codes = nullptr;  // [rows, blocks, 4 * bits]
  const uint16_t* scales = nullptr;  // [rows, blocks] in half precision
  const uint8_t* zeros = nullptr;  // [rows, zero_bytes()], two to a byte for 4 bits; null where all are in the middle

  int64_t block_bytes() const { return 4 * bits; }
  int64_t zero_bytes() const { return bits == 4 ? (blocks + 1) / 2 : blocks; }
};

// Some states rounded for weights of one width in bits, block by block so that a block's states are neighbours.
struct RoundedStates {
  int64_t count = 0;
  int8_t* codes = nullptr;    // [blocks, count, 32]; for 4 bits the even numbers of a block come before the odd ones
  float* scales = nullptr;    // [blocks, count]; NaN for a block with a NaN or an infinity
  int32_t* sums = nullptr;    // [blocks, count]: minus the sum of the codes
};

// Where states of a product come from: they are added to the residual stream, and its norm is multiplied.
struct Residual {
  const float* stream = nullptr;       // [count, width]
  const float* norm = nullptr;         // weights of the norm [width]
  const float* branch_norm = nullptr;  // of a norm of the states before they are added, or null
  float epsilon = 0, branch_epsilon = 0;
};

// sums = stream + states, or their norm; normalized = norm of that; both [count, width].
void AddResidual(const Residual& residual, const float* states, int64_t count, int64_t width, float* sums,
                 float* normalized, Pool& pool);

// out [count, weight.rows] = states [count, width] times the weight's rows; its blocks are width / 32 rounded up.
void RunProducts(const BlockWeight& weight, const float* states, int64_t count, int64_t width, float* out, Pool& pool);

// out [count, gate.rows] = activation(states times the gate's rows) * (states times as many rows of `up`), whose shape is
// the gate's. What the activation gets of a number does not depend on where it stands.
void RunGated(const BlockWeight& gate, const BlockWeight& up, Activation activation, const float* states, int64_t count,
              int64_t width, float* out, Pool& pool);

}  // namespace flashhead
