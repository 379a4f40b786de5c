// The operators `flashhead_edge::MatMulNBits`, with inputs, outputs and attributes of ONNX Runtime's
// `com.microsoft::MatMulNBits` as far as the bodies of bundles use them, and `flashhead_edge::GatedMatMulNBits`, two of
// those of the same states, the first through an activation and multiplied with the second. Computed by products.h.
#include "products.h"

#include "kernels.h"
#include "ort_kernel.h"

namespace flashhead {
namespace {

// Of the first weight; a second one's codes, scales and zero points follow.
enum Input : size_t { kStates, kCodes, kScales, kZeros, kInputs, kGatedInputs = kInputs + 3 };
constexpr size_t kSecond = kInputs - kCodes;

// Numbers of blocks lie in one row after another, whatever the rank.
const void* Flat(const Tensor& tensor, ONNXTensorElementDataType type, int64_t count, const char* what) {
  int64_t found = 1;
  for (int64_t size : tensor.shape) found *= size;
  Expect(tensor.type == type && found == count, what);
  return tensor.data;
}

struct WeightKernel : OrtKernel {
  int64_t width, rows, bits;

  WeightKernel(const OrtApi* api, const OrtKernelInfo* info) : OrtKernel{api} {
    width = Integer(info, "K");
    rows = Integer(info, "N");
    bits = Integer(info, "bits");
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
    weight.scales = static_cast<const float*>(
        Flat(Get(context, offset + kScales), kFloat, count, "scales are not [N, blocks] float"));
    if (zeros.data) {
      weight.zeros = static_cast<const uint8_t*>(
          Flat(zeros, kUint8, rows * weight.zero_bytes(), "zero_points are not one for each block, uint8"));
    }
    return weight;
  }

  // Calls run(states, their number, where the result goes), if there are any.
  template <class Run>
  void ForStates(OrtKernelContext* context, const Run& run) const {
    const Tensor states = Get(context, kStates);
    Expect(states.type == kFloat && !states.shape.empty() && states.shape.back() == width, "A is not [..., K] float");
    std::vector<int64_t> shape = states.shape;
    shape.back() = rows;
    auto* out = static_cast<float*>(Allocate(context, 0, shape));
    int64_t tokens = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) tokens *= shape[i];
    if (tokens) run(static_cast<const float*>(states.data), tokens, out);
  }
};

struct ProductKernel : WeightKernel {
  static constexpr const char* kName = "MatMulNBits";
  using WeightKernel::WeightKernel;

  void Compute(OrtKernelContext* context) const {
    const BlockWeight weight = Weight(context, 0);
    SessionPool pool(*this, context);
    ForStates(context, [&](const float* states, int64_t tokens, float* out) {
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
    ForStates(context, [&](const float* states, int64_t tokens, float* out) {
      RunGated(gate, up, activation, states, tokens, width, out, pool);
    });
  }
};

template <class Kernel, size_t kCount>
OrtCustomOp MakeProductsOp() {
  OrtCustomOp op = MakeOp<Kernel>();
  op.GetInputTypeCount = [](const OrtCustomOp*) { return kCount; };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    const size_t place = index < kInputs ? index : index - kSecond;
    return place == kCodes || place == kZeros ? kUint8 : kFloat;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == kZeros || index == kZeros + kSecond ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return kFloat; };
  return op;
}

}  // namespace

OrtCustomOp ProductsOp() { return MakeProductsOp<ProductKernel, kInputs>(); }
OrtCustomOp GatedProductsOp() { return MakeProductsOp<GatedKernel, kGatedInputs>(); }

}  // namespace flashhead
