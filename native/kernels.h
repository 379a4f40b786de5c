// Dot products of stored rows with hidden states: what every instruction set implements.
//
// Low-bit rows are blocks of 32 codes with a half-precision scale (flashhead_edge/quantize.py). A vector of codes is read as 16-bit
// lanes: a lane holds four int4 or two int8 codes, which shifts and masks bring into the place of the lane one after
// another. The state is rounded once to 16 bits and laid out in as many planes, so that every instruction set does the
// same: multiply 16-bit lanes, add pairs into 32 bits, scale by the block. 16 bits make the state's rounding (about
// 1/32767 of its greatest number) vanish beside that of the rows.
#pragma once

#include <stdint.h>

namespace flashhead {

struct BlockWeight;
struct RoundedStates;

// x / (1 + exp(-x)); and x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2: Hendrycks and Gimpel, arXiv 1606.08415.
enum class Activation { kSilu, kGeluTanh };

constexpr int64_t kBlock = 32;
// x + kRounding has x, rounded half to even, in its last bits, for |x| < 2^22; and those bits of kRounding itself.
constexpr float kRounding = 12582912.0f;
constexpr int32_t kRoundingBits = 0x4b400000;
// The upper half of a float32.
struct BFloat16 {
  uint16_t bits;
};

// Planes are padded with zeros to this many blocks: the widest vector of codes, 64 bytes, holds 4 blocks of int4.
constexpr int64_t kBlocksPadding = 4;

// What low-bit codes stand for before their scale: codes less 8 or 128; or the high nibbles of int8 codes plus 128, each
// for the middle of the 16 int8 codes that it may be of.
enum class Codes { kInt4, kInt8, kHighNibbles };
inline int64_t BlockBytes(Codes kind) { return kind == Codes::kInt8 ? 32 : 16; }

// A hidden state as the kernels read it. Plane j of a code width has state[n * i + j] at i, n = codes in a 16-bit lane.
// High nibbles are off by a seventh of a number or so; for them the state is rounded to 8 bits, block by block, and lies
// in two planes, of the first and the last 16 numbers of every block.
struct State {
  const float* values;         // [H]
  const int16_t* planes4[4];   // int4: [padded H / 4] each
  const int16_t* planes8[2];   // int8: [padded H / 2] each
  const int8_t* planes_high[2];  // high nibbles: [padded H / 2] each
  const float* scales_high;      // of the numbers that share a 32-bit lane, 4 of either plane: [padded H / 8]
  const int32_t* middle4;      // -8 * (sum of the 8 rounded numbers that share a 32-bit lane), [padded H / 8]
  const int32_t* middle8;      // -128 * (sum of the 4 ...), [padded H / 4]
  const int32_t* middle_high;  // -(8 - 7.5 / 16) * (sum of the 8 ...): what high nibbles leave out is 7.5 in the middle
  float scale;                 // of the rounded numbers; NaN for a state with a NaN or an infinity
};

// All functions: out[s][r] = row r times state s, for r < rows and s < states.
struct Kernels {
  const char* name;
  void (*rows_f32)(const float* rows, int64_t row_count, int64_t width, const State* const* states, int64_t state_count,
                   float* const* out);
  void (*rows_f16)(const uint16_t* rows, int64_t row_count, int64_t width, const State* const* states,
                   int64_t state_count, float* const* out);
  void (*rows_bf16)(const BFloat16* rows, int64_t row_count, int64_t width, const State* const* states,
                    int64_t state_count, float* const* out);
  // Rows are int8 codes times the half-precision scale of their block of 32; scales [rows, width / 32]. Of a code plus
  // 128, the high and the low nibble lie apart, [rows, width / 32, 16 bytes] each, the first 16 of a block in the low
  // halves of its bytes. Nothing is rounded.
  void (*rows_nibbles)(const uint8_t* high, const uint8_t* low, const uint16_t* scales, int64_t row_count, int64_t width,
                       const State* const* states, int64_t state_count, float* const* out);
  // Codes [rows, blocks, BlockBytes], scales [rows, blocks] in half precision. While a row is scored, the one that lies
  // `ahead` rows after it is fetched; it need not be one. Processors that run ahead of a row reach one or two more.
  void (*rows_low_bit)(const uint8_t* codes, const uint16_t* scales, Codes kind, int64_t row_count, int64_t blocks,
                       const State* const* states, int64_t state_count, float* const* out, int64_t ahead);
  // Rows are columns here: out[r] += sum over h of values[h] * columns[h * stride + r].
  void (*columns_f32)(const float* columns, int64_t stride, int64_t width, int64_t row_count, const float* values,
                      float* out);
  // out[g] = the greatest of the scores at g, g + groups, g + 2 * groups ...; minus infinity of none, NaN passed over.
  void (*greatest)(const float* scores, int64_t count, int64_t groups, float* out);
  // The n-th greatest of the scores, 1 <= n <= count; where so many are NaN that there is none, minus infinity.
  float (*nth_greatest)(const float* scores, int64_t count, int64_t n);
  // Places of the scores that are at least `limit`, in ascending order; returns how many. Room for all in `places`.
  int64_t (*at_least)(const float* scores, int64_t count, float limit, int32_t* places);
  // values = cap * tanh(values * scale / cap), or values * scale where cap is 0.
  void (*activate)(float* values, int64_t count, float scale, float cap);
  // values = exp(values - the greatest of them); returns their sum.
  float (*exponentials)(float* values, int64_t count);
  // out[s] = sum over r of weights[s][r] * row r, [width] each. Every number is summed in the order of the rows.
  void (*weighted_f32)(const float* rows, int64_t row_count, int64_t width, const float* const* weights,
                       int64_t state_count, float* const* out);
  // Of products.h: rounds `states.count` states [count, width] for codes of `bits`.
  void (*round_states)(const float* values, int64_t width, int bits, const RoundedStates& states);
  // Rows `first` to `end` of a weight with at least `product_rows`, for at most kMaxStates; out [states, stride], from
  // row `first` on.
  void (*products)(const BlockWeight& weight, int64_t first, int64_t end, const RoundedStates& states, float* out,
                   int64_t stride);
  int64_t product_rows;
  // out[i] = activation(gates[i]) * ups[i].
  void (*gate)(const float* gates, const float* ups, int64_t count, Activation activation, float* out);
};

// Null where the compiler's target or the processor lacks the instructions.
const Kernels* ScalarKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();
const Kernels* NeonKernels();

float HalfToFloat(uint16_t half);

}  // namespace flashhead
