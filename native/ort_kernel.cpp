#include "ort_kernel.h"

#include <memory>

namespace flashhead {

const void* Checked(const Tensor& tensor, std::initializer_list<ONNXTensorElementDataType> types,
                    const Shape& shape, const char* what) {
  bool known = false;
  for (auto type : types) known = known || tensor.type == type;
  Expect(known && tensor.shape == shape, what);
  return tensor.data;
}

StoredRows TableOf(const Tensor& rows, const Tensor& low, const Tensor& scales, size_t places) {
  const bool nibbles = rows.type == kUint8;
  Expect(rows.type == kFloat || rows.type == kHalf || nibbles, "rows are neither floats nor nibbles");
  Expect(rows.shape.size() == places + (nibbles ? 2 : 1), "rows are not [T, C, H], or nibbles [T, C, H / 32, 16]");
  StoredRows table;
  table.type = nibbles ? RowType::kNibbles : rows.type == kHalf ? RowType::kFloat16 : RowType::kFloat32;
  table.data = rows.data;
  table.width = rows.shape[places] * (nibbles ? kBlock : 1);
  if (nibbles) {
    Expect(rows.shape.back() == kBlock / 2, "nibbles are not in blocks of 16 bytes");
    table.low = static_cast<const uint8_t*>(Checked(low, {kUint8}, rows.shape, "low_nibbles do not fit"));
    table.scales =
        static_cast<const uint16_t*>(Checked(scales, {kHalf}, rows.shape.WithoutLast(), "row_scales do not fit"));
  }
  return table;
}

OrtKernel::OrtKernel(const OrtApi* ort, const OrtKernelInfo* info) : api(ort) {
  size_t inputs = 0;
  Check(api->KernelInfo_GetInputCount(info, &inputs));
  constants_.resize(inputs);
  for (size_t i = 0; i < inputs; ++i) {
    int constant = 0;
    const OrtValue* value = nullptr;
    Check(api->KernelInfoGetConstantInput_tensor(info, i, &constant, &value));
    if (constant && value) constants_[i] = Read(value);
  }
}

void OrtKernel::Check(OrtStatus* status) const {
  if (!status) return;
  std::string message = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw Failure{message};
}

int64_t OrtKernel::Integer(const OrtKernelInfo* info, const char* name) const {
  int64_t value = 0;
  Check(api->KernelInfoGetAttribute_int64(info, name, &value));
  return value;
}

float OrtKernel::Float(const OrtKernelInfo* info, const char* name) const {
  float value = 0;
  Check(api->KernelInfoGetAttribute_float(info, name, &value));
  return value;
}

Tensor OrtKernel::Get(OrtKernelContext* context, size_t index) const {
  if (index < constants_.size() && constants_[index].data) return constants_[index];
  const OrtValue* value = nullptr;
  Check(api->KernelContext_GetInput(context, index, &value));
  return value ? Read(value) : Tensor{};
}

Tensor OrtKernel::Read(const OrtValue* value) const {
  Tensor tensor;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  Check(api->GetTensorTypeAndShape(value, &info));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api->ReleaseTensorTypeAndShapeInfo)> owner(
      info, api->ReleaseTensorTypeAndShapeInfo);
  size_t rank = 0;
  Check(api->GetTensorElementType(info, &tensor.type));
  Check(api->GetDimensionsCount(info, &rank));
  tensor.shape.Resize(rank);
  Check(api->GetDimensions(info, tensor.shape.data(), rank));
  Check(api->GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.data));
  return tensor;
}

void* OrtKernel::Allocate(OrtKernelContext* context, size_t index, const Shape& shape) const {
  OrtValue* value = nullptr;
  Check(api->KernelContext_GetOutput(context, index, shape.data(), shape.size(), &value));
  void* data = nullptr;
  Check(api->GetTensorMutableData(value, &data));
  return data;
}

void SessionPool::Run(size_t count, void (*task)(void*, size_t), void* argument) {
  if (count == 1) return task(argument, 0);
  if (count) kernel_.Check(kernel_.api->KernelContext_ParallelFor(context_, task, count, 0, argument));
}

}  // namespace flashhead

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                                const OrtApiBase* base) {
  static const OrtCustomOp ops[] = {flashhead::TwoStageHeadOp(), flashhead::AttentionOp(), flashhead::ProductsOp(),
                                    flashhead::GatedProductsOp(), flashhead::EmbeddingOp()};
  // One domain for the process: sessions refer to it for as long as they live.
  static OrtCustomOpDomain* domain = nullptr;
  const OrtApi* api = base->GetApi(flashhead::kApiVersion);
  if (!api) return base->GetApi(1)->CreateStatus(ORT_FAIL, "flashhead_edge needs ONNX Runtime 1.17 or later");
  if (!domain) {
    OrtCustomOpDomain* made = nullptr;
    if (OrtStatus* status = api->CreateCustomOpDomain("flashhead_edge", &made)) return status;
    for (const OrtCustomOp& op : ops) {
      if (OrtStatus* status = api->CustomOpDomain_Add(made, &op)) return status;
    }
    domain = made;
  }
  return api->AddCustomOpDomain(options, domain);
}
