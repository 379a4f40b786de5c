// The operators `flashhead_edge::MatMulNBits`, with inputs, outputs and attributes of ONNX Runtime's
// `com.microsoft::MatMulNBits` as far as the bodies of bundles use them, and `flashhead_edge::GatedMatMulNBits`, two of
// those of the same states, the first through an activation and multiplied with the second. Computed by products.h.
#include "products.h"

#include "kernels.h"
#include "ort_kernel.h"

namespace flashhead {
namespace {

// Of the first weight; a second one's codes, scales and zero points may follow. Last is the residual.
enum Input : size_t { kStates, kCodes, kScales, kZeros, kWeightEnd };
enum ResidualInput : size_t { kStream, kNorm, kBranchNorm, kResidualInputs };
enum Output : size_t { kProducts, kSums, kOutputs };
constexpr size_t kSecond = kWeightEnd - kCodes;

template <size_t kWeights>
constexpr size_t kEnd = kCodes + kWeights * kSecond;

// Numbers of blocks lie in one row after another, whatever the rank.
const void* Flat(const Tensor& tensor, ONNXTensorElementDataType type, int64_t count, const char* what) {
  int64_t found = 1;
  for (int64_t size : tensor.shape) found *= size;
  Expect(tensor.type == type && found == count, what);
  return tensor.data;
}

struct WeightKernel : OrtKernel {
  int64_t width, rows, bits;
  float epsilon, branch_epsilon;

  WeightKernel(const OrtApi* api, const OrtKernelInfo* info) : OrtKernel(api, info) {
    width = Integer(info, "K");
    rows = Integer(info, "N");
    bits = Integer(info, "bits");
    epsilon = Float(info, "epsilon");
    branch_epsilon = Float(info, "branch_epsilon");
    Expect(width > 0 && rows > 0, "K or N is out of range");
    Expect(bits == 4 || bits == 8, "bits are neither 4 nor 8");
    Expect(Integer(info, "block_size") == kBlock, "block_size is not 32");
  }

  BlockWeight Weight(OrtKernelContext* context, size_t offset) const {
    BlockWeight weight;
    weight.bits = static_cast<int>(bits);
    weight.rows = rows;
    weight.blocks = (width + kBlock - 1) / kBlock;
    const int64_t count = rows * weight.blocks;
    const Tensor codes = Get(context, offset + kCodes), zeros = Get(context, offset + kZeros);
    weight.codes = static_cast<const uint8_t*>(
        Checked(codes, {kUint8}, {rows, weight.blocks, 4 * bits}, "B is not [N, blocks, bytes of a block] uint8"));
    weight.scales = static_cast<const uint16_t*>(
        Flat(Get(context, offset + kScales), kHalf, count, "scales are not [N, blocks] half"));
    if (zeros.data) {
      weight.zeros = static_cast<const uint8_t*>(
          Flat(zeros, kUint8, rows * weight.zero_bytes(), "zero_points are not one for each block, uint8"));
    }
    return weight;
  }

  // Calls run(states, their number, where the result goes), if there are any; inputs of a residual begin at `residual`.
  template <class Run>
  void ForStates(OrtKernelContext* context, Pool& pool, size_t residual, const Run& run) const {
    const Tensor states = Get(context, kStates);
    Expect(states.type == kFloat && !states.shape.empty() && states.shape.back() == width, "A is not [..., K] float");
    Shape shape = states.shape;
    shape.back() = rows;
    auto* out = static_cast<float*>(Allocate(context, kProducts, shape));
    int64_t tokens = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) tokens *= shape[i];
    if (!tokens) return;
    const auto* own = static_cast<const float*>(states.data);
    const Tensor stream = Get(context, residual + kStream);
    if (stream.data) {
      Residual parts;
      parts.epsilon = epsilon;
      parts.branch_epsilon = branch_epsilon;
      const auto numbers = [&](ResidualInput place, const Shape& sizes, const char* what) {
        return static_cast<const float*>(Checked(Get(context, residual + place), {kFloat}, sizes, what));
      };
      parts.stream = numbers(kStream, states.shape, "residual is not of A's shape");
      parts.norm = numbers(kNorm, {width}, "norm is not [K] float");
      if (Get(context, residual + kBranchNorm).data) {
        parts.branch_norm = numbers(kBranchNorm, {width}, "branch_norm is not [K] float");
      }
      static thread_local std::vector<float> normalized;
      normalized.resize(static_cast<size_t>(tokens * width));
      auto* sums = static_cast<float*>(Allocate(context, kSums, states.shape));
      AddResidual(parts, own, tokens, width, sums, normalized.data(), pool);
      own = normalized.data();
    }
    run(own, tokens, out);
  }
};

struct ProductKernel : WeightKernel {
  static constexpr const char* kName = "MatMulNBits";
  using WeightKernel::WeightKernel;

  void Compute(OrtKernelContext* context) const {
    const BlockWeight weight = Weight(context, 0);
    SessionPool pool(*this, context);
    ForStates(context, pool, kEnd<1>, [&](const float* states, int64_t tokens, float* out) {
      RunProducts(weight, states, tokens, width, out, pool);
    });
  }
};

struct GatedKernel : WeightKernel {
  static constexpr const char* kName = "GatedMatMulNBits";
  Activation activation;

  GatedKernel(const OrtApi* api, const OrtKernelInfo* info) : WeightKernel(api, info) {
    const int64_t number = Integer(info, "activation");
    Expect(number == 0 || number == 1, "activation is neither 0 (SiLU) nor 1 (GELU by tanh)");
    activation = static_cast<Activation>(number);
  }

  void Compute(OrtKernelContext* context) const {
    const BlockWeight gate = Weight(context, 0), up = Weight(context, kSecond);
    SessionPool pool(*this, context);
    ForStates(context, pool, kEnd<2>, [&](const float* states, int64_t tokens, float* out) {
      RunGated(gate, up, activation, states, tokens, width, out, pool);
    });
  }
};

// With the inputs of so many weights.
template <class Kernel, size_t kWeights>
OrtCustomOp MakeProductsOp() {
  OrtCustomOp op = MakeOp<Kernel>();
  op.GetInputTypeCount = [](const OrtCustomOp*) { return kEnd<kWeights> + kResidualInputs; };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    const size_t place = index < kWeightEnd || index >= kEnd<kWeights> ? index : index - kSecond;
    return place == kCodes || place == kZeros ? kUint8 : place == kScales ? kHalf : kFloat;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    const bool zeros = index == kZeros || (kWeights == 2 && index == kZeros + kSecond);
    return zeros || index >= kEnd<kWeights> ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return static_cast<size_t>(kOutputs); };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == kSums ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return kFloat; };
  return op;
}

}  // namespace

OrtCustomOp ProductsOp() { return MakeProductsOp<ProductKernel, 1>(); }
OrtCustomOp GatedProductsOp() { return MakeProductsOp<GatedKernel, 2>(); }

}  // namespace flashhead
