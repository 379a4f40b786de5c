// The operator `flashhead_edge::GroupQueryAttention`: inputs, outputs and attributes of ONNX Runtime's
// `com.microsoft::GroupQueryAttention` as far as the bodies of bundles use them, and norms of queries and keys before
// those turn; computed by attention.h.
#include "attention.h"

#include "ort_kernel.h"

namespace flashhead {
namespace {

enum Input : size_t {
  kQuery, kKey, kValue, kPastKey, kPastValue, kLengths, kTotal, kCosines, kSines, kQueryNorm, kKeyNorm, kInputs
};
constexpr size_t kOutputs = 3;

struct AttentionKernel : OrtKernel {
  static constexpr const char* kName = "GroupQueryAttention";
  int64_t heads, kv_heads, window, rotary, interleaved;
  float scale, softcap, epsilon;

  AttentionKernel(const OrtApi* api, const OrtKernelInfo* info) : OrtKernel(api, info) {
    heads = Integer(info, "num_heads");
    kv_heads = Integer(info, "kv_num_heads");
    window = Integer(info, "local_window_size");
    rotary = Integer(info, "do_rotary");
    interleaved = Integer(info, "rotary_interleaved");
    scale = Float(info, "scale");
    softcap = Float(info, "softcap");
    epsilon = Float(info, "norm_epsilon");
    Expect(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, "num_heads is no multiple of kv_num_heads");
    Expect(window == -1 || window > 0, "local_window_size is out of range");
  }
  void Compute(OrtKernelContext* context) const;
};

const float* Numbers(const Tensor& tensor, const Shape& shape, const char* what) {
  return static_cast<const float*>(Checked(tensor, {kFloat}, shape, what));
}

// Null where there is none.
const float* Norm(const Tensor& tensor, int64_t width, const char* what) {
  return tensor.data ? Numbers(tensor, {width}, what) : nullptr;
}

void AttentionKernel::Compute(OrtKernelContext* context) const {
  const Tensor query = Get(context, kQuery), key = Get(context, kKey), past_key = Get(context, kPastKey);
  Expect(query.type == kFloat && query.shape.size() == 3, "query is not [B, S, width] float");
  Expect(past_key.type == kFloat && past_key.shape.size() == 4, "past_key is not [B, kv_num_heads, positions, D] float");
  Attention a;
  a.batch = query.shape[0];
  a.length = query.shape[1];
  a.heads = heads;
  a.kv_heads = kv_heads;
  a.head_dim = past_key.shape[3];
  a.past_capacity = past_key.shape[2];
  a.scale = scale;
  a.softcap = softcap;
  a.window = window;
  Expect(a.head_dim > 0 && past_key.shape[0] == a.batch && past_key.shape[1] == kv_heads, "past_key does not fit");
  a.past_key = static_cast<const float*>(past_key.data);
  a.past_value = Numbers(Get(context, kPastValue), past_key.shape, "past_value does not fit");

  const int64_t own = heads * a.head_dim, shared = kv_heads * a.head_dim;
  a.query = static_cast<const float*>(query.data);
  if (key.data) {
    Expect(query.shape[2] == own, "query does not fit");
    a.key = Numbers(key, {a.batch, a.length, shared}, "key does not fit");
    a.value = Numbers(Get(context, kValue), {a.batch, a.length, shared}, "value does not fit");
    a.query_stride = own;
    a.key_stride = shared;
  } else {
    Expect(query.shape[2] == own + 2 * shared, "packed queries, keys and values do not fit");
    a.key = a.query + own;
    a.value = a.key + shared;
    a.query_stride = a.key_stride = own + 2 * shared;
  }

  const Tensor lengths = Get(context, kLengths), whole = Get(context, kTotal);
  const bool one_each = lengths.shape == Shape{a.batch} || lengths.shape == Shape{a.batch, 1};
  Expect(lengths.type == kInt32 && one_each, "seqlens_k is not [B] int32");
  int64_t count = 1;
  for (int64_t size : whole.shape) count *= size;
  Expect(whole.type == kInt32 && count == 1, "total_sequence_length is not one int32");
  const int64_t longest = *static_cast<const int32_t*>(whole.data);
  Expect(longest >= a.length, "total_sequence_length is less than the step's");
  a.capacity = a.past_capacity > longest ? a.past_capacity : longest;
  std::vector<int64_t> past(static_cast<size_t>(a.batch)), total(static_cast<size_t>(a.batch));
  for (size_t b = 0; b < past.size(); ++b) {
    total[b] = static_cast<const int32_t*>(lengths.data)[b] + int64_t{1};
    // A prompt begins at once and may end early; later steps end where the row does.
    past[b] = longest == a.length ? 0 : total[b] - a.length;
    Expect(past[b] >= 0 && past[b] <= a.past_capacity && total[b] >= 0 && total[b] <= longest, "seqlens_k is out of range");
  }
  a.past = past.data();
  a.total = total.data();

  if (rotary) {
    const Tensor cosines = Get(context, kCosines);
    Expect(cosines.type == kFloat && cosines.shape.size() == 2 && cosines.shape[0] >= longest, "cos_cache does not fit");
    a.cosines = static_cast<const float*>(cosines.data);
    a.sines = Numbers(Get(context, kSines), cosines.shape, "sin_cache does not fit");
    a.rotary = 2 * cosines.shape[1];
    a.interleaved = interleaved != 0;
    Expect(a.rotary <= a.head_dim, "cos_cache is wider than a head");
  }
  a.query_norm = Norm(Get(context, kQueryNorm), a.head_dim, "query_norm is not [D] float");
  a.key_norm = Norm(Get(context, kKeyNorm), a.head_dim, "key_norm is not [D] float");
  a.epsilon = epsilon;
  auto* output = static_cast<float*>(Allocate(context, 0, {a.batch, a.length, own}));
  a.present_key = static_cast<float*>(Allocate(context, 1, {a.batch, kv_heads, a.capacity, a.head_dim}));
  a.present_value = static_cast<float*>(Allocate(context, 2, {a.batch, kv_heads, a.capacity, a.head_dim}));
  SessionPool pool(*this, context);
  RunAttention(a, output, pool);
}

}  // namespace

OrtCustomOp AttentionOp() {
  OrtCustomOp op = MakeOp<AttentionKernel>();
  op.GetInputTypeCount = [](const OrtCustomOp*) { return static_cast<size_t>(kInputs); };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    return index == kLengths || index == kTotal ? kInt32 : kFloat;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    const bool optional = index == kKey || index == kValue || index >= kCosines;
    return optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return kOutputs; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return kFloat; };
  return op;
}

}  // namespace flashhead
