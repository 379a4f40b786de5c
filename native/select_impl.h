// Which scores are the greatest, over the vector type of kernels_impl.h.

void Greatest(const float* scores, int64_t count, int64_t groups, float* __restrict out) {
  for (int64_t g = 0; g < groups; ++g) out[g] = -__builtin_inff();
  for (int64_t begin = 0; begin < count; begin += groups) {
    const int64_t part = count - begin < groups ? count - begin : groups;
    const float* __restrict from = scores + begin;
    for (int64_t g = 0; g < part; ++g) out[g] = from[g] > out[g] ? from[g] : out[g];
  }
}

// Floats in the order of their numbers, minus infinity to infinity, and back.
inline uint32_t ToKey(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

inline float FromKey(uint32_t key) {
  const uint32_t bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

inline int64_t Reaching(const float* scores, int64_t count, float limit) {
  int64_t found = 0, i = 0;
  for (; i + Simd::kFloats <= count; i += Simd::kFloats) {
    found += __builtin_popcount(Simd::AtLeast(Simd::LoadFloats(scores + i), limit));
  }
  for (; i < count; ++i) found += scores[i] >= limit;
  return found;
}

// Bisection: counting what reaches a limit takes no branch that a processor has to guess.
float NthGreatest(const float* scores, int64_t count, int64_t n) {
  uint32_t low = ToKey(-__builtin_inff()), high = ToKey(__builtin_inff());
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2 + 1;
    const bool reached = Reaching(scores, count, FromKey(middle)) >= n;
    low = reached ? middle : low;
    high = reached ? high : middle - 1;
  }
  return FromKey(low);
}

int64_t AtLeast(const float* scores, int64_t count, float limit, int32_t* places) {
  int64_t found = 0, i = 0;
  for (; i + Simd::kFloats <= count; i += Simd::kFloats) {
    for (uint32_t bits = Simd::AtLeast(Simd::LoadFloats(scores + i), limit); bits; bits &= bits - 1) {
      places[found++] = static_cast<int32_t>(i) + __builtin_ctz(bits);
    }
  }
  for (; i < count; ++i) {
    if (scores[i] >= limit) places[found++] = static_cast<int32_t>(i);
  }
  return found;
}
