// The operator `flashhead_edge::TwoStageHead` for ONNX Runtime 1.17 and later. Tables are initializers, which ONNX
// Runtime maps from the bundle's data files and hands over in place; work runs on the session's own threads.
#include <math.h>

#include <exception>
#include <initializer_list>
#include <string>
#include <vector>

#include "head.h"
#include "third_party/onnxruntime/onnxruntime_c_api.h"

namespace flashhead {
namespace {

constexpr uint32_t kApiVersion = 17;  // the first with KernelContext_ParallelFor

enum Input : size_t {
  kHiddenStates, kCentroids, kCentroidScales, kCentroidBias, kSelectionOffset, kRows, kTokenOrder, kRowBias,
  kLowCodes, kLowScales, kProjection, kInputs
};
constexpr size_t kOutputs = 4;

// Thrown inside the library only; every entry turns it into a status.
struct Failure {
  std::string message;
};

struct Tensor {
  void* data = nullptr;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<int64_t> shape;
};

struct Kernel {
  const OrtApi* api;
  int64_t probes, rescored;
  float scale, softcap;

  void Check(OrtStatus* status) const {
    if (!status) return;
    std::string message = api->GetErrorMessage(status);
    api->ReleaseStatus(status);
    throw Failure{message};
  }

  Tensor Get(OrtKernelContext* context, size_t index) const {
    const OrtValue* value = nullptr;
    Check(api->KernelContext_GetInput(context, index, &value));
    Tensor tensor;
    if (!value) return tensor;
    OrtTensorTypeAndShapeInfo* info = nullptr;
    Check(api->GetTensorTypeAndShape(value, &info));
    size_t rank = 0;
    OrtStatus* status = api->GetTensorElementType(info, &tensor.type);
    if (!status) status = api->GetDimensionsCount(info, &rank);
    tensor.shape.resize(rank);
    if (!status) status = api->GetDimensions(info, tensor.shape.data(), rank);
    api->ReleaseTensorTypeAndShapeInfo(info);
    Check(status);
    Check(api->GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.data));
    return tensor;
  }

  void* Allocate(OrtKernelContext* context, size_t index, const std::vector<int64_t>& shape) const {
    OrtValue* value = nullptr;
    Check(api->KernelContext_GetOutput(context, index, shape.data(), shape.size(), &value));
    void* data = nullptr;
    Check(api->GetTensorMutableData(value, &data));
    return data;
  }

  void Compute(OrtKernelContext* context) const;
};

void Expect(bool condition, const char* what) {
  if (!condition) throw Failure{std::string("TwoStageHead: ") + what};
}

// Null data where an optional input is absent; everything else must fit, or rows would be read out of bounds.
const void* Checked(const Tensor& tensor, std::initializer_list<ONNXTensorElementDataType> types,
                    const std::vector<int64_t>& shape, const char* what) {
  bool known = false;
  for (auto type : types) known = known || tensor.type == type;
  Expect(known && tensor.shape == shape, what);
  return tensor.data;
}

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
constexpr auto kInt32 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
constexpr auto kUint8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;

int BitsOf(const Tensor& codes, size_t rank, int64_t blocks, const char* what) {
  Expect(codes.type == kUint8 && codes.shape.size() == rank && codes.shape[rank - 2] == blocks, what);
  const int64_t bytes = codes.shape[rank - 1];
  Expect(bytes == 16 || bytes == 32, what);
  return static_cast<int>(bytes / 4);
}

class SessionPool : public Pool {
 public:
  SessionPool(const Kernel& kernel, OrtKernelContext* context) : kernel_(kernel), context_(context) {}
  void Run(size_t count, void (*task)(void*, size_t), void* argument) override {
    if (count == 1) return task(argument, 0);
    if (count) kernel_.Check(kernel_.api->KernelContext_ParallelFor(context_, task, count, 0, argument));
  }

 private:
  const Kernel& kernel_;
  OrtKernelContext* context_;
};

void Kernel::Compute(OrtKernelContext* context) const {
  const Tensor hidden = Get(context, kHiddenStates), centroids = Get(context, kCentroids);
  const Tensor rows = Get(context, kRows), offset = Get(context, kSelectionOffset);
  Expect(hidden.type == kFloat && hidden.shape.size() == 2 && hidden.shape[1] > 0, "hidden_states is not [B, H] float");
  Expect((rows.type == kFloat || rows.type == kHalf) && rows.shape.size() == 3, "rows are not [T, C, H]");
  Expect(offset.type == kFloat && offset.shape.size() == 1, "selection_offset is not [K] float");
  const int64_t batch = hidden.shape[0];
  Head head;
  head.width = hidden.shape[1];
  head.clusters = offset.shape[0];
  head.cluster_size = rows.shape[1];
  head.always = rows.shape[0] - head.clusters;
  head.probes = probes;
  head.scale = scale;
  head.softcap = softcap;
  const int64_t total = rows.shape[0], size = head.cluster_size, blocks = (head.width + 31) / 32;
  Expect(rows.shape[2] == head.width && size > 0 && head.always >= 0, "rows and clusters do not fit");
  Expect(probes >= 1 && probes <= head.clusters, "num_probes is out of range");

  const Tensor projection = Get(context, kProjection);
  int64_t centroid_width = head.width;
  if (projection.data) {
    Expect(projection.type == kFloat && projection.shape.size() == 2 && projection.shape[0] == head.width &&
               projection.shape[1] > 0, "projection is not [H, r]");
    head.projection = static_cast<const float*>(projection.data);
    centroid_width = head.rank = projection.shape[1];
  }
  const int64_t centroid_blocks = (centroid_width + 31) / 32;
  if (centroids.type == kFloat) {
    head.centroids = Checked(centroids, {kFloat}, {centroid_width, head.clusters}, "centroids are not [width, K]");
  } else {
    head.centroid_bits = BitsOf(centroids, 3, centroid_blocks, "centroids are not codes [K, blocks, bytes]");
    Expect(centroids.shape[0] == head.clusters, "there are not K centroids");
    head.centroids = centroids.data;
    head.centroid_scales = static_cast<const float*>(Checked(Get(context, kCentroidScales), {kFloat},
                                                             {head.clusters, centroid_blocks}, "centroid_scales do not fit"));
  }
  head.centroid_bias = static_cast<const float*>(
      Checked(Get(context, kCentroidBias), {kFloat}, {head.clusters}, "centroid_bias does not fit"));
  head.selection_offset = static_cast<const float*>(offset.data);
  head.rows = rows.data;
  head.row_type = rows.type == kHalf ? RowType::kFloat16 : RowType::kFloat32;
  head.token_order = static_cast<const int32_t*>(
      Checked(Get(context, kTokenOrder), {kInt32}, {total, size}, "token_order does not fit"));
  const Tensor bias = Get(context, kRowBias), codes = Get(context, kLowCodes);
  if (bias.data) head.row_bias = static_cast<const float*>(Checked(bias, {kFloat}, {total, size}, "row_bias does not fit"));
  if (codes.data) {
    head.low_bits = BitsOf(codes, 4, blocks, "low_bit_codes are not [T, C, blocks, bytes]");
    Expect(codes.shape[0] == total && codes.shape[1] == size, "low_bit_codes do not fit");
    head.low_codes = static_cast<const uint8_t*>(codes.data);
    head.low_scales = static_cast<const float*>(
        Checked(Get(context, kLowScales), {kFloat}, {total, size, blocks}, "low_bit_scales do not fit"));
    Expect(rescored >= 1 && scale > 0, "low-bit rows need num_rescored >= 1 and a positive logit_scale");
    head.rescored = rescored;
  }
  HeadOutputs out;
  out.token_ids = static_cast<int64_t*>(Allocate(context, 0, {batch}));
  out.candidate_ids = static_cast<int64_t*>(Allocate(context, 1, {batch, head.candidates()}));
  out.candidate_logits = static_cast<float*>(Allocate(context, 2, {batch, head.candidates()}));
  out.cluster_scores = static_cast<float*>(Allocate(context, 3, {batch, head.clusters}));
  if (batch == 0) return;
  SessionPool pool(*this, context);
  RunHead(head, static_cast<const float*>(hidden.data), batch, out, pool);
}

template <class Work>
OrtStatus* Guard(const OrtApi* api, Work work) {
  try {
    work();
    return nullptr;
  } catch (const Failure& failure) {
    return api->CreateStatus(ORT_INVALID_ARGUMENT, failure.message.c_str());
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}

OrtStatus* CreateKernel(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** result) {
  return Guard(api, [&] {
    auto kernel = Kernel{api, 0, 0, 1, 0};
    kernel.Check(api->KernelInfoGetAttribute_int64(info, "num_probes", &kernel.probes));
    kernel.Check(api->KernelInfoGetAttribute_int64(info, "num_rescored", &kernel.rescored));
    kernel.Check(api->KernelInfoGetAttribute_float(info, "logit_scale", &kernel.scale));
    kernel.Check(api->KernelInfoGetAttribute_float(info, "logit_softcap", &kernel.softcap));
    *result = new Kernel(kernel);
  });
}

OrtStatus* ComputeKernel(void* kernel, OrtKernelContext* context) {
  const auto* self = static_cast<const Kernel*>(kernel);
  return Guard(self->api, [&] { self->Compute(context); });
}

OrtCustomOp MakeOp() {
  OrtCustomOp op = {};
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp*) { return "TwoStageHead"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return static_cast<size_t>(kInputs); };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    switch (index) {
      case kCentroids: case kRows: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // codes or float; half or float
      case kTokenOrder: return kInt32;
      case kLowCodes: return kUint8;
      default: return kFloat;
    }
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return kOutputs; };
  op.GetOutputType = [](const OrtCustomOp*, size_t index) {
    return index < 2 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : kFloat;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    const bool optional = index == kCentroidScales || index >= kRowBias;
    return optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.CreateKernelV2 = CreateKernel;
  op.KernelComputeV2 = ComputeKernel;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1 << 30; };
  return op;
}

}  // namespace
}  // namespace flashhead

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                                const OrtApiBase* base) {
  static const OrtCustomOp op = flashhead::MakeOp();
  // One domain for the process: sessions refer to it for as long as they live.
  static OrtCustomOpDomain* domain = nullptr;
  const OrtApi* api = base->GetApi(flashhead::kApiVersion);
  if (!api) return base->GetApi(1)->CreateStatus(ORT_FAIL, "flashhead_edge needs ONNX Runtime 1.17 or later");
  if (!domain) {
    OrtCustomOpDomain* made = nullptr;
    if (OrtStatus* status = api->CreateCustomOpDomain("flashhead_edge", &made)) return status;
    if (OrtStatus* status = api->CustomOpDomain_Add(made, &op)) return status;
    domain = made;
  }
  return api->AddCustomOpDomain(options, domain);
}
