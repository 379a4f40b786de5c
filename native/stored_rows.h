// Rows of a table in the precision that they are stored in, and their exact products.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

namespace flashhead {

enum class RowType { kFloat32, kFloat16, kBFloat16, kInt8 };

struct StoredRows {
  RowType type = RowType::kFloat16;
  const void* data = nullptr;        // [N, width]
  const uint16_t* scales = nullptr;  // [N, width / 32] in half precision, of int8 rows
  int64_t width = 0;

  int64_t row_bytes() const { return width * (type == RowType::kFloat32 ? 4 : type == RowType::kInt8 ? 1 : 2); }
  const char* Row(int64_t row) const { return static_cast<const char*>(data) + row * row_bytes(); }

  void Prefetch(int64_t row, int64_t count) const {
    PrefetchBytes(Row(row), count * row_bytes());
    if (scales) PrefetchBytes(scales + row * (width / kBlock), count * (width / kBlock) * 2);
  }

  // out[s][r] = the product of row `first` + r with state s; no bias, no scale of logits.
  void Score(const Kernels& kernels, int64_t first, int64_t count, const State* const* states, int64_t state_count,
             float* const* out) const {
    const void* rows = Row(first);
    switch (type) {
      case RowType::kFloat32:
        return kernels.rows_f32(static_cast<const float*>(rows), count, width, states, state_count, out);
      case RowType::kFloat16:
        return kernels.rows_f16(static_cast<const uint16_t*>(rows), count, width, states, state_count, out);
      case RowType::kBFloat16:
        return kernels.rows_bf16(static_cast<const BFloat16*>(rows), count, width, states, state_count, out);
      case RowType::kInt8:
        return kernels.rows_i8(static_cast<const int8_t*>(rows), scales + first * (width / kBlock), count, width, states,
                               state_count, out);
    }
  }

  static void PrefetchBytes(const void* from, int64_t count) {
    for (int64_t byte = 0; byte < count; byte += 64) __builtin_prefetch(static_cast<const char*>(from) + byte);
  }
};

}  // namespace flashhead
