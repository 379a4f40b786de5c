// What the operators for ONNX Runtime share: tensors of a call, checks, and the session's threads.
#pragma once

#include <algorithm>
#include <exception>
#include <initializer_list>
#include <string>
#include <vector>

#include "head.h"
#include "third_party/onnxruntime/onnxruntime_c_api.h"

namespace flashhead {

constexpr uint32_t kApiVersion = 17;  // the first with KernelContext_ParallelFor

constexpr auto kBool = ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
constexpr auto kInt32 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
constexpr auto kUint8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;

// Thrown inside the library only; every entry turns it into a status.
struct Failure {
  std::string message;
};

// Sizes of a tensor, in place: a step looks at a thousand of them.
class Shape {
 public:
  static constexpr size_t kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : rank_(sizes.size()) { std::copy(sizes.begin(), sizes.end(), sizes_); }

  void Resize(size_t rank) {
    if (rank > kMaxRank) throw Failure{"a tensor has more than 8 axes"};
    rank_ = rank;
  }
  // One more axis, or one less, at the end.
  Shape With(int64_t size) const {
    Shape more = *this;
    more.Resize(rank_ + 1);
    more.back() = size;
    return more;
  }
  Shape WithoutLast() const {
    Shape less = *this;
    --less.rank_;
    return less;
  }

  size_t size() const { return rank_; }
  bool empty() const { return rank_ == 0; }
  int64_t* data() { return sizes_; }
  const int64_t* data() const { return sizes_; }
  const int64_t* begin() const { return sizes_; }
  const int64_t* end() const { return sizes_ + rank_; }
  int64_t operator[](size_t axis) const { return sizes_[axis]; }
  int64_t& back() { return sizes_[rank_ - 1]; }
  int64_t back() const { return sizes_[rank_ - 1]; }
  bool operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

 private:
  int64_t sizes_[kMaxRank] = {};
  size_t rank_ = 0;
};

struct Tensor {
  void* data = nullptr;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  Shape shape;
};

inline void Expect(bool condition, const char* what) {
  if (!condition) throw Failure{what};
}

// Null data where an optional input is absent; everything else must fit, or memory would be read out of bounds.
const void* Checked(const Tensor& tensor, std::initializer_list<ONNXTensorElementDataType> types,
                    const Shape& shape, const char* what);

// The rows of a table whose first `places` axes count them: floats [..., H], or the nibbles of int8 rows,
// [..., H / 32, 16] each, with scales [..., H / 32] in half precision.
StoredRows TableOf(const Tensor& rows, const Tensor& low, const Tensor& scales, size_t places);

// The base of a kernel: one for each node of a session.
struct OrtKernel {
  OrtKernel(const OrtApi* ort, const OrtKernelInfo* info);

  const OrtApi* api;

  void Check(OrtStatus* status) const;
  int64_t Integer(const OrtKernelInfo* info, const char* name) const;
  float Float(const OrtKernelInfo* info, const char* name) const;
  // Without data where an optional input is absent.
  Tensor Get(OrtKernelContext* context, size_t index) const;
  void* Allocate(OrtKernelContext* context, size_t index, const Shape& shape) const;

 private:
  Tensor Read(const OrtValue* value) const;

  // Initializers, by input: they stay what they are, and asking for a tensor's shape allocates memory each time.
  std::vector<Tensor> constants_;
};

// The session's own threads, for the time of a call.
class SessionPool : public Pool {
 public:
  SessionPool(const OrtKernel& kernel, OrtKernelContext* context) : kernel_(kernel), context_(context) {}
  void Run(size_t count, void (*task)(void*, size_t), void* argument) override;

 private:
  const OrtKernel& kernel_;
  OrtKernelContext* context_;
};

template <class Work>
OrtStatus* Guard(const OrtApi* api, const char* op, Work work) {
  try {
    work();
    return nullptr;
  } catch (const Failure& failure) {
    return api->CreateStatus(ORT_INVALID_ARGUMENT, (std::string(op) + ": " + failure.message).c_str());
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}

// The parts of an operator that do not depend on its inputs. A kernel is made from (api, info) and has
// kName and Compute(context).
template <class Kernel>
OrtCustomOp MakeOp() {
  OrtCustomOp op = {};
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp*) { return Kernel::kName; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** result) {
    return Guard(api, Kernel::kName, [&] { *result = new Kernel(api, info); });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    const auto* self = static_cast<const Kernel*>(kernel);
    return Guard(self->api, Kernel::kName, [&] { self->Compute(context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1 << 30; };
  return op;
}

OrtCustomOp TwoStageHeadOp();
OrtCustomOp AttentionOp();
OrtCustomOp ProductsOp();
OrtCustomOp GatedProductsOp();
OrtCustomOp EmbeddingOp();

}  // namespace flashhead
