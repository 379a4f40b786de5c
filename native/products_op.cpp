// The operator `flashhead_edge::MatMulNBits`: inputs, outputs and attributes of ONNX Runtime's
// `com.microsoft::MatMulNBits` as far as the bodies of bundles use them, computed by products.h.
#include "products.h"

#include "kernels.h"
#include "ort_kernel.h"

namespace flashhead {
namespace {

enum Input : size_t { kStates, kCodes, kScales, kZeros, kInputs };

struct ProductKernel : OrtKernel {
  static constexpr const char* kName = "MatMulNBits";
  int64_t width, rows, bits;

  ProductKernel(const OrtApi* api, const OrtKernelInfo* info) : OrtKernel{api} {
    width = Integer(info, "K");
    rows = Integer(info, "N");
    bits = Integer(info, "bits");
    Expect(width > 0 && rows > 0, "K or N is out of range");
    Expect(bits == 4 || bits == 8, "bits are neither 4 nor 8");
    Expect(Integer(info, "block_size") == kBlock, "block_size is not 32");
  }
  void Compute(OrtKernelContext* context) const;
};

// Numbers of blocks lie in one row after another, whatever the rank.
const void* Flat(const Tensor& tensor, ONNXTensorElementDataType type, int64_t count, const char* what) {
  int64_t found = 1;
  for (int64_t size : tensor.shape) found *= size;
  Expect(tensor.type == type && found == count, what);
  return tensor.data;
}

void ProductKernel::Compute(OrtKernelContext* context) const {
  const Tensor states = Get(context, kStates), zeros = Get(context, kZeros);
  Expect(states.type == kFloat && !states.shape.empty() && states.shape.back() == width, "A is not [..., K] float");
  BlockWeight weight;
  weight.bits = static_cast<int>(bits);
  weight.rows = rows;
  weight.blocks = (width + kBlock - 1) / kBlock;
  const int64_t count = rows * weight.blocks;
  weight.codes = static_cast<const uint8_t*>(Checked(Get(context, kCodes), {kUint8}, {rows, weight.blocks, 4 * bits},
                                                     "B is not [N, blocks, bytes of a block] uint8"));
  weight.scales = static_cast<const float*>(Flat(Get(context, kScales), kFloat, count, "scales are not [N, blocks] float"));
  if (zeros.data) {
    weight.zeros = static_cast<const uint8_t*>(
        Flat(zeros, kUint8, rows * weight.zero_bytes(), "zero_points are not one for each block, uint8"));
  }
  std::vector<int64_t> shape = states.shape;
  shape.back() = rows;
  auto* out = static_cast<float*>(Allocate(context, 0, shape));
  int64_t tokens = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) tokens *= shape[i];
  if (!tokens) return;
  SessionPool pool(*this, context);
  RunProducts(weight, static_cast<const float*>(states.data), tokens, width, out, pool);
}

}  // namespace

OrtCustomOp ProductsOp() {
  OrtCustomOp op = MakeOp<ProductKernel>();
  op.GetInputTypeCount = [](const OrtCustomOp*) { return static_cast<size_t>(kInputs); };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    return index == kCodes || index == kZeros ? kUint8 : kFloat;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == kZeros ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return kFloat; };
  return op;
}

}  // namespace flashhead
