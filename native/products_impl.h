// The kernels of products.h, written once over a type `Rows` that the including file defines in its own namespace:
//   kRows                              rows of the weight that are computed together, one in each lane
//   Quads, Ints, Floats                four bytes, an integer and a float for each row
//   Transposed(from, stride, quads)    16 bytes of every row: quads[i] are the i-th four of each
//   Low, High(quads)                   the nibbles of every byte
//   Signed<bits>(quads), kMiddle<bits> how Dot wants codes, and what it takes from them thereby
//   Field<bits>(quads, i)              so many bits of every four bytes, from the i-th on
//   Dot<bits>(quads[8], codes, zeros, sum)   32 products of each row, plus zeros * sum
//   Widen(quads, floats[2])            two half-precision numbers of each row as floats
//   Same(int), Same(float), Minus(ints, int), Multiply, MultiplyAdd(ints, scales, sums), Load, Store

template <int kBits>
void RoundBlock(const float* __restrict values, int8_t* __restrict codes, float* scale, int32_t* sum) {
  uint32_t bits[kBlock], greatest = 0;
  memcpy(bits, values, sizeof bits);
  for (uint32_t number : bits) {
    const uint32_t size = number & 0x7fffffffu;
    greatest = size > greatest ? size : greatest;
  }
  float most;
  memcpy(&most, &greatest, sizeof most);
  *sum = 0;
  *scale = most / 127.0f;
  if (greatest >= 0x7f800000u || most < 1e-36f) {  // below, the inverse overflows and every product is as good as zero
    *scale = most < 1e-36f ? 0.0f : __builtin_nanf("");
    memset(codes, 0, kBlock);
    return;
  }
  const float inverse = 127.0f / most;
  int8_t rounded[kBlock];
  int32_t total = 0;
  for (int64_t i = 0; i < kBlock; ++i) {
    const float moved = values[i] * inverse + kRounding;
    int32_t number;
    memcpy(&number, &moved, sizeof number);
    number -= kRoundingBits;
    total += number;
    rounded[i] = static_cast<int8_t>(number);
  }
  *sum = -total;
  if (kBits == 8) {
    memcpy(codes, rounded, kBlock);
  } else {
    for (int64_t i = 0; i < kBlock / 2; ++i) {
      codes[i] = rounded[2 * i];
      codes[kBlock / 2 + i] = rounded[2 * i + 1];
    }
  }
}

void RoundStates(const float* values, int64_t width, int bits, const RoundedStates& states) {
  const auto round = bits == 4 ? RoundBlock<4> : RoundBlock<8>;
  for (int64_t s = 0; s < states.count; ++s, values += width) {
    for (int64_t b = 0; b * kBlock < width; ++b) {
      const int64_t place = b * states.count + s, left = width - b * kBlock;
      const float* from = values + b * kBlock;
      float padded[kBlock] = {};
      if (left < kBlock) {
        memcpy(padded, from, static_cast<size_t>(left) * sizeof(float));
        from = padded;
      }
      round(from, states.codes + place * kBlock, states.scales + place, states.sums + place);
    }
  }
}

// Eight blocks of half-precision scales for every row, of which `count` are there.
inline void LoadScales(const uint16_t* scales, int64_t blocks, int64_t count, Rows::Floats* loaded) {
  Rows::Quads quads[4];
  if (count >= 8) {
    Rows::Transposed(reinterpret_cast<const uint8_t*>(scales), blocks * 2, quads);
  } else {
    uint16_t padded[Rows::kRows][8] = {};
    for (int64_t r = 0; r < Rows::kRows; ++r) {
      for (int64_t i = 0; i < count; ++i) padded[r][i] = scales[r * blocks + i];
    }
    Rows::Transposed(reinterpret_cast<const uint8_t*>(padded), 16, quads);
  }
  for (int i = 0; i < 4; ++i) Rows::Widen(quads[i], loaded + 2 * i);
}

template <int kBits>
inline void LoadCodes(const uint8_t* codes, int64_t stride, Rows::Quads* quads) {
  Rows::Transposed(codes, stride, quads);
  if (kBits == 4) {
    for (int i = 0; i < 4; ++i) quads[4 + i] = Rows::High(quads[i]);
    for (int i = 0; i < 4; ++i) quads[i] = Rows::Low(quads[i]);
  } else {
    Rows::Transposed(codes + 16, stride, quads + 4);
  }
  for (int i = 0; i < 8; ++i) quads[i] = Rows::template Signed<kBits>(quads[i]);
}

// Sixteen bytes of zero points for every row, of which `count` are there; `left` bytes may be read.
inline void LoadZeros(const uint8_t* zeros, int64_t stride, int64_t count, int64_t left, Rows::Quads* quads) {
  constexpr int64_t kBytes = 16;
  if ((Rows::kRows - 1) * stride + kBytes <= left) return Rows::Transposed(zeros, stride, quads);
  uint8_t padded[Rows::kRows][kBytes] = {};
  const auto bytes = static_cast<size_t>(count < kBytes ? count : kBytes);
  for (int64_t r = 0; r < Rows::kRows; ++r) memcpy(padded[r], zeros + r * stride, bytes);
  Rows::Transposed(padded[0], kBytes, quads);
}

inline void Prefetch(const void* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(from) + i);
}

// sums[s] = kRows rows from `first` on times state s.
template <int kBits>
void RowTile(const BlockWeight& weight, int64_t first, const RoundedStates& states, float (*sums)[Rows::kRows]) {
  constexpr int64_t kBytes = 4 * kBits, kRows = Rows::kRows;
  const int64_t blocks = weight.blocks, zero_bytes = weight.zero_bytes();
  const uint8_t* codes = weight.codes + first * blocks * kBytes;
  const uint16_t* scales = weight.scales + first * blocks;
  for (int64_t s = 0; s < states.count; ++s) memset(sums[s], 0, sizeof sums[s]);
  const auto middle = Rows::Same(1 << (kBits - 1));
  Rows::Quads fields[4];
  for (int64_t begin = 0; begin < blocks; begin += 8) {
    const int64_t count = blocks - begin < 8 ? blocks - begin : 8;
    Rows::Floats scale[8];
    LoadScales(scales + begin, blocks, count, scale);
    const int64_t byte = begin * kBits / 8;
    if (weight.zeros && byte % 16 == 0) {
      const int64_t offset = first * zero_bytes + byte;
      LoadZeros(weight.zeros + offset, zero_bytes, zero_bytes - byte, weight.rows * zero_bytes - offset, fields);
    }
    for (int64_t j = 0; j < count; ++j) {
      const int64_t b = begin + j;
      Rows::Quads quads[8];
      LoadCodes<kBits>(codes + b * kBytes, blocks * kBytes, quads);
      // Rows lie one after another: a whole tile ahead, memory is read in a straight line.
      Prefetch(codes + (blocks + b) * kRows * kBytes, kRows * kBytes);
      Prefetch(scales + (blocks + b) * kRows, kRows * 2);
      const int bit = static_cast<int>(b * kBits % 32);
      const auto stored = weight.zeros ? Rows::template Field<kBits>(fields[b * kBits / 32 % 4], bit) : middle;
      const auto zeros = Rows::Minus(stored, Rows::template kMiddle<kBits>);
      const int8_t* state = states.codes + b * states.count * kBlock;
      const float* state_scale = states.scales + b * states.count;
      const int32_t* state_sum = states.sums + b * states.count;
      for (int64_t s = 0; s < states.count; ++s, state += kBlock) {
        const auto product = Rows::template Dot<kBits>(quads, state, zeros, state_sum[s]);
        const auto both = Rows::Multiply(scale[j], Rows::Same(state_scale[s]));
        Rows::Store(sums[s], Rows::MultiplyAdd(product, both, Rows::Load(sums[s])));
      }
    }
  }
}

// Rows `first` to `end` of the weight, which has at least kRows, for at most kMaxStates states; out [states, `stride`],
// from row `first` on.
void ProductRows(const BlockWeight& weight, int64_t first, int64_t end, const RoundedStates& states, float* out,
                 int64_t stride) {
  alignas(64) float sums[kMaxStates][Rows::kRows];
  for (; first < end; first += Rows::kRows, out += Rows::kRows) {
    // The last rows again with some before them, where a tile would reach beyond the weight.
    const int64_t begin = first + Rows::kRows > weight.rows ? weight.rows - Rows::kRows : first;
    const int64_t skipped = first - begin, left = end - first;
    const int64_t count = left < Rows::kRows - skipped ? left : Rows::kRows - skipped;
    weight.bits == 4 ? RowTile<4>(weight, begin, states, sums) : RowTile<8>(weight, begin, states, sums);
    for (int64_t s = 0; s < states.count; ++s) {
      memcpy(out + s * stride, sums[s] + skipped, static_cast<size_t>(count) * sizeof(float));
    }
  }
}
