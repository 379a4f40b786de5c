#include "dispatch.h"

#include <string.h>

#include <atomic>
#include <initializer_list>

namespace flashhead {
namespace {

const Kernels* Best() {
  for (const Kernels* kernels : {Avx512Kernels(), Avx2Kernels(), NeonKernels()}) {
    if (kernels) return kernels;
  }
  return ScalarKernels();
}

std::atomic<const Kernels*>& Chosen() {
  static std::atomic<const Kernels*> chosen{Best()};
  return chosen;
}

}  // namespace

const Kernels* CurrentKernels() { return Chosen().load(std::memory_order_relaxed); }

bool UseKernels(const char* name) {
  if (!name) {
    Chosen() = Best();
    return true;
  }
  for (const Kernels* kernels : {Avx512Kernels(), Avx2Kernels(), NeonKernels(), ScalarKernels()}) {
    if (kernels && !strcmp(kernels->name, name)) {
      Chosen() = kernels;
      return true;
    }
  }
  return false;
}

}  // namespace flashhead
