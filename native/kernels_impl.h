// The kernels, written once over a vector type `Simd` that the including file defines in its own namespace:
//   Codes, Ints, Floats      registers; kCodeBytes bytes of codes make kCodeBytes / 4 lanes of Ints and of Floats
//   LoadCodes, LoadCodesPartial(bytes), Plane(bits, j, codes)      the j-th code of every 16-bit lane
//   LoadInts, MultiplyAdd(ints, codes, const int16_t*)             16-bit products, pairs added to 32-bit lanes
//   AddNibbles(ints, codes, const int8_t* low, high)               8-bit products of the nibbles of four bytes
//   ToFloats, Zero, Multiply, MultiplyAdd(a, b, c) = a * b + c, Sum
//   Scales<blocks>(const uint16_t*)                                a half-precision scale for every lane of its block
//   AtLeast(floats, limit)                                         a bit for every lane
//   kFloats, LoadFloats of const float*, uint16_t* (half precision), BFloat16* or int8_t*
//   JoinNibbles(high, low, int8_t* codes)                          a block's codes
//   Broadcast(float), BroadcastHalf(uint16_t), Store(float*, floats)

template <Codes kKind, int kStates>
void LowBitTile(const uint8_t* codes, const uint16_t* scales, int64_t rows, int64_t blocks, const State* const* states,
                float* const* out, int64_t ahead) {
  constexpr int kBits = kKind == Codes::kInt8 ? 8 : 4;
  constexpr bool kHigh = kKind == Codes::kHighNibbles;
  constexpr auto kMiddle = kHigh ? &State::middle_high : kBits == 4 ? &State::middle4 : &State::middle8;
  constexpr int64_t kBlockBytes = 4 * kBits, kPlanes = 16 / kBits;
  constexpr int64_t kBlocks = Simd::kCodeBytes / kBlockBytes;
  constexpr int64_t kPlaneStep = Simd::kCodeBytes / 2, kMiddleStep = Simd::kCodeBytes / 4;
  const int64_t full = blocks / kBlocks, rest = blocks % kBlocks;
  for (int64_t r = 0; r < rows; ++r) {
    Prefetch(codes + ahead * blocks * kBlockBytes, blocks * kBlockBytes);
    Prefetch(scales + ahead * blocks, blocks * 2);
    Simd::Floats sums[kStates];
    for (int s = 0; s < kStates; ++s) sums[s] = Simd::Zero();
    const auto add = [&](int64_t group, Simd::Codes vector, Simd::Floats scale) {
      for (int s = 0; s < kStates; ++s) {
        const State& state = *states[s];
        auto ints = Simd::LoadInts(state.*kMiddle + group * kMiddleStep);
        if (kHigh) {
          const int64_t place = group * Simd::kCodeBytes;
          ints = Simd::AddNibbles(ints, vector, state.planes_high[0] + place, state.planes_high[1] + place);
          const auto both = Simd::Multiply(scale, Simd::LoadFloats(state.scales_high + group * kMiddleStep));
          sums[s] = Simd::MultiplyAdd(Simd::ToFloats(ints), both, sums[s]);
          continue;
        }
        for (int j = 0; j < kPlanes; ++j) {
          const int16_t* plane = kBits == 4 ? state.planes4[j] : state.planes8[j & 1];
          ints = Simd::MultiplyAdd(ints, Simd::template Plane<kBits>(j, vector), plane + group * kPlaneStep);
        }
        sums[s] = Simd::MultiplyAdd(Simd::ToFloats(ints), scale, sums[s]);
      }
    };
    for (int64_t g = 0; g < full; ++g) {
      add(g, Simd::LoadCodes(codes + g * Simd::kCodeBytes), Simd::template Scales<kBlocks>(scales + g * kBlocks));
    }
    if (rest) {
      uint16_t padded[kBlocksPadding] = {};
      for (int64_t b = 0; b < rest; ++b) padded[b] = scales[full * kBlocks + b];
      add(full, Simd::LoadCodesPartial(codes + full * Simd::kCodeBytes, rest * kBlockBytes),
          Simd::template Scales<kBlocks>(padded));
    }
    for (int s = 0; s < kStates; ++s) out[s][r] = Simd::Sum(sums[s]) * (kHigh ? 16 : states[s]->scale);
    codes += blocks * kBlockBytes;
    scales += blocks;
  }
}

template <int kStates, class Element>
void ExactTile(const Element* rows, int64_t row_count, int64_t width, const State* const* states, float* const* out) {
  constexpr int64_t kStep = Simd::kFloats;
  const int64_t full = width / kStep * kStep;
  for (int64_t r = 0; r < row_count; ++r, rows += width) {
    Simd::Floats sums[kStates][2];
    for (auto& pair : sums) pair[0] = pair[1] = Simd::Zero();
    int64_t i = 0;
    for (; i + 2 * kStep <= full; i += 2 * kStep) {
      const auto first = Simd::LoadFloats(rows + i), second = Simd::LoadFloats(rows + i + kStep);
      for (int s = 0; s < kStates; ++s) {
        sums[s][0] = Simd::MultiplyAdd(first, Simd::LoadFloats(states[s]->values + i), sums[s][0]);
        sums[s][1] = Simd::MultiplyAdd(second, Simd::LoadFloats(states[s]->values + i + kStep), sums[s][1]);
      }
    }
    if (i < full) {
      const auto first = Simd::LoadFloats(rows + i);
      for (int s = 0; s < kStates; ++s) {
        sums[s][0] = Simd::MultiplyAdd(first, Simd::LoadFloats(states[s]->values + i), sums[s][0]);
      }
    }
    for (int s = 0; s < kStates; ++s) {
      float sum = Simd::Sum(Simd::Add(sums[s][0], sums[s][1]));
      for (i = full; i < width; ++i) sum += ElementToFloat(rows[i]) * states[s]->values[i];
      out[s][r] = sum;
    }
  }
}

// One sum a lane over all blocks: what a block adds is scaled before it joins.
template <int kStates>
void NibbleTile(const uint8_t* high, const uint8_t* low, const uint16_t* scales, int64_t row_count, int64_t width,
                const State* const* states, float* const* out) {
  constexpr int64_t kStep = Simd::kFloats, kBytes = kBlock / 2;
  const int64_t blocks = width / kBlock;
  for (int64_t r = 0; r < row_count; ++r, scales += blocks) {
    Simd::Floats sums[kStates];
    for (auto& sum : sums) sum = Simd::Zero();
    for (int64_t b = 0; b < blocks; ++b, high += kBytes, low += kBytes) {
      int8_t codes[kBlock];
      Simd::JoinNibbles(high, low, codes);
      Simd::Floats products[kStates];
      for (auto& product : products) product = Simd::Zero();
      for (int64_t i = 0; i < kBlock; i += kStep) {
        const auto row = Simd::LoadFloats(codes + i);
        for (int s = 0; s < kStates; ++s) {
          products[s] = Simd::MultiplyAdd(row, Simd::LoadFloats(states[s]->values + b * kBlock + i), products[s]);
        }
      }
      const auto scale = Simd::BroadcastHalf(scales[b]);
      for (int s = 0; s < kStates; ++s) sums[s] = Simd::MultiplyAdd(products[s], scale, sums[s]);
    }
    for (int s = 0; s < kStates; ++s) out[s][r] = Simd::Sum(sums[s]);
  }
}

// Four states share a row in registers; more take the row again from the nearest cache.
#define FLASHHEAD_TILES(call)                                                 \
  for (; state_count > 0; states += 4, out += 4, state_count -= 4) {          \
    switch (state_count) {                                                    \
      case 1: { constexpr int kStates = 1; call; break; }                     \
      case 2: { constexpr int kStates = 2; call; break; }                     \
      case 3: { constexpr int kStates = 3; call; break; }                     \
      default: { constexpr int kStates = 4; call; break; }                    \
    }                                                                         \
  }

// Rows of a low-bit tile: few enough to stay in the first-level cache while the states of a batch pass over them.
constexpr int64_t kTileRows = 32;

template <Codes kKind>
void LowBitStates(const uint8_t* codes, const uint16_t* scales, int64_t rows, int64_t blocks,
                  const State* const* states, int64_t state_count, float* const* out, int64_t ahead) {
  FLASHHEAD_TILES((LowBitTile<kKind, kStates>(codes, scales, rows, blocks, states, out, ahead)))
}

template <Codes kKind>
void LowBitRowsOf(const uint8_t* codes, const uint16_t* scales, int64_t rows, int64_t blocks,
                  const State* const* states, int64_t state_count, float* const* out, int64_t ahead) {
  if (state_count <= 4) return LowBitStates<kKind>(codes, scales, rows, blocks, states, state_count, out, ahead);
  float* shifted[kMaxStates];
  for (int64_t r = 0; r < rows; r += kTileRows) {
    for (int64_t s = 0; s < state_count; ++s) shifted[s] = out[s] + r;
    const int64_t count = rows - r < kTileRows ? rows - r : kTileRows;
    LowBitStates<kKind>(codes + r * blocks * BlockBytes(kKind), scales + r * blocks, count, blocks, states, state_count,
                        shifted, ahead);
  }
}

void LowBitRows(const uint8_t* codes, const uint16_t* scales, Codes kind, int64_t rows, int64_t blocks,
                const State* const* states, int64_t state_count, float* const* out, int64_t ahead) {
  for (; state_count > 0; states += kMaxStates, out += kMaxStates, state_count -= kMaxStates) {
    const int64_t count = state_count < kMaxStates ? state_count : kMaxStates;
    switch (kind) {
      case Codes::kInt4: LowBitRowsOf<Codes::kInt4>(codes, scales, rows, blocks, states, count, out, ahead); break;
      case Codes::kInt8: LowBitRowsOf<Codes::kInt8>(codes, scales, rows, blocks, states, count, out, ahead); break;
      case Codes::kHighNibbles: LowBitRowsOf<Codes::kHighNibbles>(codes, scales, rows, blocks, states, count, out, ahead);
    }
  }
}

template <class Element>
void ExactRows(const Element* rows, int64_t row_count, int64_t width, const State* const* states, int64_t state_count,
               float* const* out) {
  FLASHHEAD_TILES((ExactTile<kStates>(rows, row_count, width, states, out)))
}

void NibbleRows(const uint8_t* high, const uint8_t* low, const uint16_t* scales, int64_t row_count, int64_t width,
                const State* const* states, int64_t state_count, float* const* out) {
  FLASHHEAD_TILES((NibbleTile<kStates>(high, low, scales, row_count, width, states, out)))
}

void Columns(const float* columns, int64_t stride, int64_t width, int64_t row_count, const float* values,
             float* __restrict out) {
  for (int64_t h = 0; h < width; ++h) {
    const float value = values[h];
    const float* __restrict column = columns + h * stride;
    for (int64_t r = 0; r < row_count; ++r) out[r] += value * column[r];
  }
}

// exp(x) for -87 <= x <= 0: a power of two, and a Taylor polynomial on |r| <= ln(2) / 2.
inline float Exp(float x) {
  const int power = static_cast<int>(x * 1.44269504f - 0.5f);
  const float r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
  float e = 1.0f / 5040;
  e = e * r + 1.0f / 720;
  e = e * r + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  const int32_t bits = (power + 127) << 23;
  float two;
  __builtin_memcpy(&two, &bits, 4);
  return e * two;
}

// tanh(x) = (1 - e) / (1 + e) with e = exp(-2|x|): absolute error below 2e-7, which the cap scales.
void Activate(float* __restrict values, int64_t count, float scale, float cap) {
  if (cap == 0) {
    if (scale != 1) {
      for (int64_t i = 0; i < count; ++i) values[i] *= scale;
    }
    return;
  }
  const float factor = scale / cap;
  for (int64_t i = 0; i < count; ++i) {
    const float x = values[i] * factor;
    float size = __builtin_fabsf(x);
    size = size < 20.0f ? size : 20.0f;
    const float e = Exp(-2.0f * size);
    const float result = cap * ((1.0f - e) / (1.0f + e));
    const float signed_result = x < 0 ? -result : result;
    values[i] = x == x ? signed_result : x;
  }
}

float Exponentials(float* __restrict values, int64_t count) {
  constexpr int64_t kStep = Simd::kFloats;
  float lanes[kStep], greatest;
  Greatest(values, count, kStep, lanes);
  greatest = lanes[0];
  for (float lane : lanes) greatest = lane > greatest ? lane : greatest;
  for (int64_t i = 0; i < count; ++i) {
    const float x = values[i] - greatest;
    values[i] = Exp(x < -87.0f ? -87.0f : x);  // NaN stays
  }
  auto sums = Simd::Zero();
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) sums = Simd::Add(sums, Simd::LoadFloats(values + i));
  float sum = Simd::Sum(sums);
  for (; i < count; ++i) sum += values[i];
  return sum;
}

template <int kStates, int kVectors>
int64_t WeightedColumns(const float* rows, int64_t row_count, int64_t width, int64_t column, const float* const* weights,
                        float* const* out) {
  constexpr int64_t kStep = kVectors * Simd::kFloats;
  for (; column + kStep <= width; column += kStep) {
    Simd::Floats sums[kStates][kVectors];
    for (auto& row : sums) {
      for (auto& sum : row) sum = Simd::Zero();
    }
    const float* row = rows + column;
    for (int64_t r = 0; r < row_count; ++r, row += width) {
      for (int s = 0; s < kStates; ++s) {
        const auto weight = Simd::Broadcast(weights[s][r]);
        for (int v = 0; v < kVectors; ++v) {
          sums[s][v] = Simd::MultiplyAdd(Simd::LoadFloats(row + v * Simd::kFloats), weight, sums[s][v]);
        }
      }
    }
    for (int s = 0; s < kStates; ++s) {
      for (int v = 0; v < kVectors; ++v) Simd::Store(out[s] + column + v * Simd::kFloats, sums[s][v]);
    }
  }
  return column;
}

template <int kStates>
void WeightedTile(const float* rows, int64_t row_count, int64_t width, const float* const* weights, float* const* out) {
  constexpr int kVectors = Simd::kFloats >= 16 ? 4 : 2;  // as many sums as there are registers for
  int64_t column = WeightedColumns<kStates, kVectors>(rows, row_count, width, 0, weights, out);
  column = WeightedColumns<kStates, 1>(rows, row_count, width, column, weights, out);
  for (; column < width; ++column) {
    for (int s = 0; s < kStates; ++s) {
      float sum = 0;
      for (int64_t r = 0; r < row_count; ++r) sum += weights[s][r] * rows[r * width + column];
      out[s][column] = sum;
    }
  }
}

void WeightedRows(const float* rows, int64_t row_count, int64_t width, const float* const* states, int64_t state_count,
                  float* const* out) {
  FLASHHEAD_TILES((WeightedTile<kStates>(rows, row_count, width, states, out)))
}

// Both activations are x times a logistic function.
template <bool kCubed>
void GateBy(const float* __restrict gates, const float* __restrict ups, int64_t count, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    const float x = gates[i];
    const float y = kCubed ? 1.59576912f * (x + 0.044715f * x * x * x) : x;  // 2 * sqrt(2 / pi)
    float size = __builtin_fabsf(y);
    size = size < 87.0f ? size : 87.0f;
    const float e = Exp(-size);
    const float logistic = (y < 0 ? e : 1.0f) / (1.0f + e);
    const float gated = x * logistic;
    out[i] = (x == x ? gated : x) * ups[i];
  }
}

void Gate(const float* gates, const float* ups, int64_t count, Activation activation, float* out) {
  activation == Activation::kSilu ? GateBy<false>(gates, ups, count, out) : GateBy<true>(gates, ups, count, out);
}

const Kernels kTable = {Simd::kName, ExactRows<float>, ExactRows<uint16_t>, ExactRows<BFloat16>, NibbleRows, LowBitRows,
                        Columns, Greatest, NthGreatest, AtLeast, Activate, Exponentials, WeightedRows,
                        RoundStates, ProductRows, Rows::kRows, Gate};
