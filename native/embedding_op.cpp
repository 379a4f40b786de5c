// The operator `flashhead_edge::TokenEmbedding`: rows of tokens, from the table that the head clusters or from one by
// token, as float32 and times a factor.
#include <string.h>

#include "kernels_common.h"
#include "ort_kernel.h"
#include "share.h"

namespace flashhead {
namespace {

enum Input : size_t { kTokens, kSlots, kTable, kLowNibbles, kRowScales, kInputs };
// Tokens that are not worth another thread.
constexpr int64_t kFewTokens = 8;

template <class Element>
void Widen(const void* row, int64_t width, float scale, float* out) {
  const auto* from = static_cast<const Element*>(row);
  for (int64_t i = 0; i < width; ++i) out[i] = ElementToFloat(from[i]) * scale;
}

void WidenNibbles(const StoredRows& rows, int64_t row, float scale, float* out) {
  const uint8_t *high = rows.Row(row), *low = rows.Low(row);
  const uint16_t* scales = rows.Scales(row);
  for (int64_t b = 0; b < rows.width / kBlock; ++b, high += kBlock / 2, low += kBlock / 2) {
    int8_t codes[kBlock];
    JoinNibbles(high, low, codes);
    const float factor = HalfToFloat(scales[b]);
    for (const int8_t code : codes) *out++ = static_cast<float>(code) * factor * scale;
  }
}

struct EmbeddingKernel : OrtKernel {
  static constexpr const char* kName = "TokenEmbedding";
  float scale;
  KeptSource source;

  EmbeddingKernel(const OrtApi* api, const OrtKernelInfo* info) : OrtKernel(api, info) { scale = Float(info, "scale"); }

  void Compute(OrtKernelContext* context) const {
    const Tensor tokens = Get(context, kTokens), slots = Get(context, kSlots), table = Get(context, kTable);
    Expect(tokens.type == kInt64, "input_ids are not int64");
    // Without slots, rows stand by token.
    const size_t places = slots.data ? 2 : 1;
    const StoredRows rows = TableOf(table, Get(context, kLowNibbles), Get(context, kRowScales), places);
    int64_t stored = 1, count = 1;
    for (size_t i = 0; i < places; ++i) stored *= table.shape[i];
    for (int64_t size : tokens.shape) count *= size;
    int64_t known = stored;
    if (slots.data) {
      Expect(slots.type == kInt32 && slots.shape.size() == 1, "slot_of_token is not [V] int32");
      known = slots.shape[0];
    }
    std::vector<int64_t> numbers(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t token = static_cast<const int64_t*>(tokens.data)[i];
      Expect(token >= 0 && token < known, "a token id is out of range");
      const int64_t row = slots.data ? static_cast<const int32_t*>(slots.data)[token] : token;
      Expect(row >= 0 && row < stored, "slot_of_token is out of range");
      numbers[static_cast<size_t>(i)] = row;
    }
    auto* out = static_cast<float*>(Allocate(context, 0, tokens.shape.With(rows.width)));
    SessionPool pool(*this, context);
    Share(pool, count, count < kFewTokens, [&](int64_t i) {
      const int64_t row = numbers[static_cast<size_t>(i)];
      float* to = out + i * rows.width;
      switch (rows.type) {
        case RowType::kFloat32: return Widen<float>(rows.Row(row), rows.width, scale, to);
        case RowType::kFloat16: return Widen<uint16_t>(rows.Row(row), rows.width, scale, to);
        case RowType::kBFloat16: return;  // of no bundle
        case RowType::kNibbles: {
          thread_local RowCache cache;
          StoredRows one;
          if (cache.Get(*source.Of(rows, stored), row, &one)) return WidenNibbles(one, 0, scale, to);
          return WidenNibbles(rows, row, scale, to);
        }
      }
    });
  }
};

}  // namespace

OrtCustomOp EmbeddingOp() {
  OrtCustomOp op = MakeOp<EmbeddingKernel>();
  op.GetInputTypeCount = [](const OrtCustomOp*) { return static_cast<size_t>(kInputs); };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    constexpr ONNXTensorElementDataType types[] = {kInt64, kInt32, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, kUint8, kHalf};
    return types[index];
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == kTokens || index == kTable ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return kFloat; };
  return op;
}

}  // namespace flashhead
