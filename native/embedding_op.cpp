// The operator `flashhead_edge::TokenEmbedding`: rows of tokens, from the table that the head clusters or from one by
// token, as float32 and times a factor.
#include <string.h>

#include <memory>
#include <mutex>

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
  constexpr int64_t kHalf = kBlock / 2;
  for (int64_t b = 0; b < rows.width / kBlock; ++b, high += kHalf, low += kHalf, out += kBlock) {
    const float factor = HalfToFloat(scales[b]);
    for (int64_t i = 0; i < kHalf; ++i) {
      out[i] = static_cast<float>(((high[i] & 15) << 4 | (low[i] & 15)) - 128) * factor * scale;
      out[kHalf + i] = static_cast<float>(((high[i] & 240) | low[i] >> 4) - 128) * factor * scale;
    }
  }
}

struct EmbeddingKernel : OrtKernel {
  static constexpr const char* kName = "TokenEmbedding";
  float scale;
  // Tables are initializers: they stay where they are as long as the kernel does.
  mutable std::once_flag found_source;
  mutable std::unique_ptr<RowSource> source;

  EmbeddingKernel(const OrtApi* api, const OrtKernelInfo* info) : OrtKernel{api} { scale = Float(info, "scale"); }

  void Compute(OrtKernelContext* context) const {
    const Tensor tokens = Get(context, kTokens), slots = Get(context, kSlots), table = Get(context, kTable);
    Expect(tokens.type == kInt64, "input_ids are not int64");
    Expect(table.type == kFloat || table.type == kHalf || table.type == kUint8, "rows are neither floats nor nibbles");
    const bool nibbles = table.type == kUint8;
    // Without slots, rows stand by token.
    const size_t places = slots.data ? 2 : 1;
    Expect(table.shape.size() == places + (nibbles ? 2 : 1), "rows are not [T, C, H], or nibbles [T, C, H / 32, 16]");
    StoredRows rows;
    rows.type = nibbles ? RowType::kNibbles : table.type == kHalf ? RowType::kFloat16 : RowType::kFloat32;
    rows.data = table.data;
    rows.width = table.shape[places] * (nibbles ? kBlock : 1);
    if (nibbles) {
      Expect(table.shape[places + 1] == kBlock / 2, "nibbles are not in blocks of 16 bytes");
      rows.low = static_cast<const uint8_t*>(
          Checked(Get(context, kLowNibbles), {kUint8}, table.shape, "low_nibbles do not fit"));
      std::vector<int64_t> blocks(table.shape.begin(), table.shape.end() - 1);
      rows.scales = static_cast<const uint16_t*>(
          Checked(Get(context, kRowScales), {kHalf}, blocks, "row_scales do not fit"));
      const int64_t slots_stored = table.shape[0] * (slots.data ? table.shape[1] : 1);
      std::call_once(found_source, [&] { source = std::make_unique<RowSource>(rows, slots_stored, true); });
    }
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
    std::vector<int64_t> shape = tokens.shape;
    shape.push_back(rows.width);
    auto* out = static_cast<float*>(Allocate(context, 0, shape));
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
          if (cache.Get(*source, row, &one)) return WidenNibbles(one, 0, scale, to);
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
