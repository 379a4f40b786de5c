// Hidden states of a batch in the layouts that the kernels read.
#pragma once

#include <vector>

#include "kernels.h"

namespace flashhead {

class States {
 public:
  // Copies nothing of `values` [count, width], which must outlive this; reuses its own memory from call to call.
  void Assign(const float* values, int64_t count, int64_t width, bool low_bit);

  const State* const* pointers() const { return pointers_.data(); }
  const State& operator[](int64_t i) const { return states_[i]; }

 private:
  void Round(const float* values, int64_t width, int64_t padded, State* state, int16_t* planes, int32_t* middles);

  // States rounded for high nibbles.
  struct High {
    std::vector<int8_t> codes;
    std::vector<float> scales;
    std::vector<int32_t> middles;
    // Of one state, before they are laid out.
    std::vector<int8_t> rounded;
    std::vector<float> factors;
    std::vector<int32_t> sums;

    void Resize(int64_t count, int64_t padded);
    void Round(const float* values, int64_t width, int64_t padded, int64_t number, State* state);
  };

  std::vector<State> states_;
  std::vector<const State*> pointers_;
  std::vector<int16_t> planes_;
  std::vector<int32_t> middles_;
  std::vector<int32_t> rounded_;  // one state
  High high_;
};

}  // namespace flashhead
