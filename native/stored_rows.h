// Rows of a table in the precision that they are stored in, and their exact products.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

namespace flashhead {

enum class RowType { kFloat32, kFloat16, kBFloat16, kNibbles };

struct StoredRows {
  RowType type = RowType::kFloat16;
  const void* data = nullptr;  // [N, width]; of int8 rows the high nibbles, [N, width / 32, 16]
  int64_t width = 0;
  const uint8_t* low = nullptr;      // of int8 rows the low nibbles, [N, width / 32, 16]
  const uint16_t* scales = nullptr;  // and their scales in half precision, [N, width / 32]

  // What `data` has of a row.
  int64_t data_bytes() const {
    return type == RowType::kNibbles ? width / 2 : width * (type == RowType::kFloat32 ? 4 : 2);
  }
  int64_t row_bytes() const { return type == RowType::kNibbles ? width + width / kBlock * 2 : data_bytes(); }
  const uint8_t* Row(int64_t row) const { return static_cast<const uint8_t*>(data) + row * data_bytes(); }
  const uint8_t* Low(int64_t row) const { return low + row * (width / 2); }
  const uint16_t* Scales(int64_t row) const { return scales + row * (width / kBlock); }

  void Prefetch(int64_t row, int64_t count) const {
    PrefetchBytes(Row(row), count * data_bytes());
    if (type != RowType::kNibbles) return;
    PrefetchBytes(Low(row), count * data_bytes());
    PrefetchBytes(Scales(row), count * (width / kBlock) * 2);
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
      case RowType::kNibbles:
        return kernels.rows_nibbles(Row(first), Low(first), Scales(first), count, width, states, state_count, out);
    }
  }

  static void PrefetchBytes(const void* from, int64_t count) {
    for (int64_t byte = 0; byte < count; byte += 64) __builtin_prefetch(static_cast<const char*>(from) + byte);
  }
};

}  // namespace flashhead
