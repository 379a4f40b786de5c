// The operator `flashhead_edge::TwoStageHead` for ONNX Runtime 1.17 and later. Tables are initializers, which ONNX
// Runtime maps from the bundle's data files and hands over in place; work runs on the session's own threads.
#include "head.h"
#include "ort_kernel.h"

namespace flashhead {
namespace {

enum Input : size_t {
  kHiddenStates, kCentroids, kCentroidScales, kCentroidBias, kSelectionOffset, kRows, kTokenOrder, kRowBias,
  kLowCodes, kLowScales, kProjection, kLowNibbles, kRowScales, kCentroidHigh, kGreedy, kInputs
};
constexpr size_t kOutputs = 4;

struct HeadKernel : OrtKernel {
  static constexpr const char* kName = "TwoStageHead";
  int64_t probes, rescored;
  float scale, softcap;

  HeadKernel(const OrtApi* api, const OrtKernelInfo* info) : OrtKernel(api, info) {
    probes = Integer(info, "num_probes");
    rescored = Integer(info, "num_rescored");
    scale = Float(info, "logit_scale");
    softcap = Float(info, "logit_softcap");
  }
  void Compute(OrtKernelContext* context) const;

  KeptSource source;
};

Codes KindOf(const Tensor& codes, size_t rank, int64_t blocks, const char* what) {
  Expect(codes.type == kUint8 && codes.shape.size() == rank && codes.shape[rank - 2] == blocks, what);
  const int64_t bytes = codes.shape[rank - 1];
  Expect(bytes == 16 || bytes == 32, what);
  return bytes == 16 ? Codes::kInt4 : Codes::kInt8;
}

const uint16_t* Halves(const Tensor& tensor, const Shape& shape, const char* what) {
  return static_cast<const uint16_t*>(Checked(tensor, {kHalf}, shape, what));
}

void HeadKernel::Compute(OrtKernelContext* context) const {
  const Tensor hidden = Get(context, kHiddenStates), centroids = Get(context, kCentroids);
  const Tensor rows = Get(context, kRows), offset = Get(context, kSelectionOffset);
  Expect(hidden.type == kFloat && hidden.shape.size() == 2 && hidden.shape[1] > 0, "hidden_states is not [B, H] float");
  Expect(offset.type == kFloat && offset.shape.size() == 1, "selection_offset is not [K] float");
  const int64_t batch = hidden.shape[0];
  Head head;
  head.rows = TableOf(rows, Get(context, kLowNibbles), Get(context, kRowScales), 2);
  head.width = hidden.shape[1];
  head.clusters = offset.shape[0];
  head.cluster_size = rows.shape[1];
  head.always = rows.shape[0] - head.clusters;
  head.probes = probes;
  head.scale = scale;
  head.softcap = softcap;
  const int64_t total = rows.shape[0], size = head.cluster_size, blocks = (head.width + 31) / 32;
  Expect(head.rows.width == head.width && size > 0 && head.always >= 0, "rows and clusters do not fit");
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
    head.coded_centroids = true;
    head.centroid_kind = KindOf(centroids, 3, centroid_blocks, "centroids are not codes [K, blocks, bytes]");
    Expect(centroids.shape[0] == head.clusters, "there are not K centroids");
    head.centroids = centroids.data;
    const Tensor high = Get(context, kCentroidHigh);
    if (high.data) {
      Expect(head.centroid_kind == Codes::kInt8, "only int8 centroids have high nibbles");
      head.centroid_high = static_cast<const uint8_t*>(
          Checked(high, {kUint8}, {head.clusters, centroid_blocks, 16}, "centroid_high does not fit"));
    }
    head.centroid_scales =
        Halves(Get(context, kCentroidScales), {head.clusters, centroid_blocks}, "centroid_scales do not fit");
  }
  head.centroid_bias = static_cast<const float*>(
      Checked(Get(context, kCentroidBias), {kFloat}, {head.clusters}, "centroid_bias does not fit"));
  head.selection_offset = static_cast<const float*>(offset.data);
  if (head.rows.low) {
    head.low_kind = Codes::kHighNibbles;
    head.low_codes = head.rows.Row(0);
    head.low_scales = head.rows.scales;
  }
  head.token_order = static_cast<const int32_t*>(
      Checked(Get(context, kTokenOrder), {kInt32}, {total, size}, "token_order does not fit"));
  const Tensor bias = Get(context, kRowBias), codes = Get(context, kLowCodes);
  if (bias.data) head.row_bias = static_cast<const float*>(Checked(bias, {kFloat}, {total, size}, "row_bias does not fit"));
  if (codes.data) {
    head.low_kind = KindOf(codes, 4, blocks, "low_bit_codes are not [T, C, blocks, bytes]");
    Expect(codes.shape[0] == total && codes.shape[1] == size, "low_bit_codes do not fit");
    head.low_codes = static_cast<const uint8_t*>(codes.data);
    head.low_scales = Halves(Get(context, kLowScales), {total, size, blocks}, "low_bit_scales do not fit");
  }
  const Tensor greedy = Get(context, kGreedy);
  if (greedy.data) {
    head.greedy = *static_cast<const bool*>(Checked(greedy, {kBool}, {1}, "greedy is not [1] bool"));
    Expect(rescored >= 1 && scale > 0, "greedy heads need num_rescored >= 1 and a positive logit_scale");
    head.rescored = rescored;
    if (head.greedy && head.rows.low) head.source = source.Of(head.rows, total * size);
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

}  // namespace

OrtCustomOp TwoStageHeadOp() {
  OrtCustomOp op = MakeOp<HeadKernel>();
  op.GetInputTypeCount = [](const OrtCustomOp*) { return static_cast<size_t>(kInputs); };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    switch (index) {
      case kCentroids: case kRows: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // codes or float; or half
      case kTokenOrder: return kInt32;
      case kLowCodes: case kLowNibbles: case kCentroidHigh: return kUint8;
      case kCentroidScales: case kLowScales: case kRowScales: return kHalf;
      case kGreedy: return kBool;
      default: return kFloat;
    }
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    const bool optional = index == kCentroidScales || index >= kRowBias;
    return optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return kOutputs; };
  op.GetOutputType = [](const OrtCustomOp*, size_t index) { return index < 2 ? kInt64 : kFloat; };
  return op;
}

}  // namespace flashhead
