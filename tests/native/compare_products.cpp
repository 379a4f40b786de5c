// Two sets of kernels on the same random products: `compare_products NAME NAME` prints how many are equal bit for bit.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "dispatch.h"
#include "products.h"

using namespace flashhead;

struct OneThread : Pool {
  void Run(size_t count, void (*task)(void*, size_t), void* argument) override {
    for (size_t i = 0; i < count; ++i) task(argument, i);
  }
};

static int Draw(int low, int high) { return low + rand() % (high - low + 1); }

static std::vector<uint8_t> Bytes(size_t count) {
  std::vector<uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(rand());
  return bytes;
}

static std::vector<float> Numbers(size_t count) {
  std::vector<float> numbers(count);
  for (auto& number : numbers) number = static_cast<float>(rand()) / static_cast<float>(RAND_MAX) - 0.5f;
  return numbers;
}

// Of half precision, below 1 in size.
static std::vector<uint16_t> Halves(size_t count) {
  std::vector<uint16_t> halves(count);
  for (auto& half : halves) half = static_cast<uint16_t>(rand() % 0x3c00 | (rand() & 0x8000));
  return halves;
}

int main(int, char** names) {
  constexpr int kCases = 200;
  int equal = 0;
  for (int number = 0; number < kCases; ++number) {
    srand(static_cast<unsigned>(number));
    BlockWeight weight;
    weight.bits = number & 1 ? 4 : 8;
    weight.rows = Draw(1, 90);
    const int64_t width = Draw(1, 400), count = Draw(1, 9);
    weight.blocks = (width + 31) / 32;
    const auto codes = Bytes(static_cast<size_t>(weight.rows * weight.blocks * weight.block_bytes()));
    const auto zeros = Bytes(static_cast<size_t>(weight.rows * weight.zero_bytes()));
    const auto scales = Halves(static_cast<size_t>(weight.rows * weight.blocks));
    const auto states = Numbers(static_cast<size_t>(count * width));
    weight.codes = codes.data();
    weight.scales = scales.data();
    weight.zeros = number & 2 ? zeros.data() : nullptr;
    BlockWeight other = weight;  // the same codes, other zero points
    other.zeros = number & 2 ? nullptr : zeros.data();
    const auto activation = number & 4 ? Activation::kSilu : Activation::kGeluTanh;
    std::vector<float> out[2];
    for (int side = 0; side < 2; ++side) {
      if (!UseKernels(names[1 + side])) return 1;
      const auto size = static_cast<size_t>(count * weight.rows);
      out[side].resize(2 * size);
      OneThread pool;
      RunProducts(weight, states.data(), count, width, out[side].data(), pool);
      RunGated(weight, other, activation, states.data(), count, width, out[side].data() + size, pool);
    }
    equal += !memcmp(out[0].data(), out[1].data(), out[0].size() * sizeof(float));
  }
  printf("%d %d\n", kCases, equal);
  return 0;
}
