// Two sets of kernels on the same random heads: `compare_kernels NAME NAME` prints how far they are apart.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "dispatch.h"
#include "head.h"

using namespace flashhead;

struct OneThread : Pool {
  void Run(size_t count, void (*task)(void*, size_t), void* argument) override {
    for (size_t i = 0; i < count; ++i) task(argument, i);
  }
};

static int Draw(int low, int high) { return low + rand() % (high - low + 1); }

template <class Number>
static std::vector<Number> Numbers(size_t count) {
  std::vector<Number> numbers(count);
  for (auto& number : numbers) number = static_cast<Number>(rand() / static_cast<float>(RAND_MAX) - 0.5f);
  return numbers;
}

static std::vector<uint8_t> Bytes(size_t count) {
  std::vector<uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(rand());
  return bytes;
}

// Of half precision, below 1 in size.
static std::vector<uint16_t> Halves(size_t count) {
  std::vector<uint16_t> halves(count);
  for (auto& half : halves) half = static_cast<uint16_t>(rand() % 0x3c00 | (rand() & 0x8000));
  return halves;
}

int main(int, char** names) {
  constexpr int kCases = 150;
  int same_tokens = 0, same_candidates = 0;
  double apart = 0;
  for (int number = 0; number < kCases; ++number) {
    srand(number);
    Head head;
    head.width = Draw(1, 300);
    const auto type = static_cast<RowType>(number % 4);
    if (type == RowType::kNibbles) head.width = (head.width + 31) / 32 * 32;
    head.clusters = Draw(5, 60);
    head.cluster_size = Draw(1, 20);
    head.always = Draw(0, 2);
    head.probes = Draw(1, static_cast<int>(head.clusters));
    head.softcap = number & 4 ? 30 : 0;
    head.coded_centroids = true;
    head.centroid_kind = number & 1 ? Codes::kInt4 : Codes::kInt8;
    const int64_t batch = Draw(1, 9), blocks = (head.width + 31) / 32, total = head.clusters + head.always;
    const int64_t slots = total * head.cluster_size, candidates = head.candidates();
    const auto codes = Bytes(head.clusters * blocks * BlockBytes(head.centroid_kind));
    const auto scales = Halves(head.clusters * blocks);
    const auto bias = Numbers<float>(head.clusters);
    const auto offset = Numbers<float>(head.clusters), states = Numbers<float>(batch * head.width);
    const auto rows = Numbers<float>(slots * head.width);
    const auto halves = Halves(rows.size());
    std::vector<BFloat16> upper(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      uint32_t bits;
      memcpy(&bits, &rows[i], 4);
      upper[i].bits = static_cast<uint16_t>(bits >> 16);
    }
    head.rows_by_token = !(number & 8) && number & 32;
    std::vector<int32_t> order(slots);
    for (int64_t i = 0; i < slots; ++i) order[i] = rand() % 7 ? static_cast<int32_t>(slots - 1 - i) : -1;
    head.centroids = codes.data();
    head.centroid_scales = scales.data();
    head.centroid_bias = bias.data();
    head.selection_offset = offset.data();
    const auto high = Bytes(rows.size()), low = Bytes(rows.size());
    const void* stored[] = {rows.data(), halves.data(), upper.data(), high.data()};
    head.rows = {type, stored[number % 4], head.width, low.data(), halves.data()};
    head.token_order = order.data();
    head.low_kind = type == RowType::kNibbles ? Codes::kHighNibbles : number & 16 ? Codes::kInt4 : Codes::kInt8;
    const auto low_codes = Bytes(slots * blocks * BlockBytes(head.low_kind));
    const auto low_scales = Halves(slots * blocks);
    head.low_codes = type == RowType::kNibbles ? high.data() : low_codes.data();
    head.low_scales = type == RowType::kNibbles ? halves.data() : low_scales.data();
    head.greedy = number & 8;
    head.rescored = Draw(1, static_cast<int>(candidates));
    std::vector<int64_t> tokens[2], ids[2];
    std::vector<float> logits[2], scores[2];
    for (int side = 0; side < 2; ++side) {
      if (!UseKernels(names[1 + side])) return 1;
      tokens[side].resize(batch);
      ids[side].resize(batch * candidates);
      logits[side].resize(batch * candidates);
      scores[side].resize(batch * head.clusters);
      OneThread pool;
      RunHead(head, states.data(), batch,
              {tokens[side].data(), ids[side].data(), logits[side].data(), scores[side].data()}, pool);
    }
    same_tokens += tokens[0] == tokens[1];
    same_candidates += ids[0] == ids[1];
    for (size_t i = 0; i < scores[0].size(); ++i) {
      apart = fmax(apart, fabs(scores[0][i] - scores[1][i]) / (10 + fabs(scores[0][i])));
    }
    for (size_t i = 0; !head.greedy && i < logits[0].size(); ++i) {
      if (isfinite(logits[0][i])) apart = fmax(apart, fabs(logits[0][i] - logits[1][i]) / (1 + fabs(logits[0][i])));
    }
  }
  printf("%d %d %d %.3e\n", kCases, same_tokens, same_candidates, apart);
  return 0;
}
