// Work shared among the threads of a pool.
#pragma once

#include "head.h"

namespace flashhead {

// work(i) for i < count; on the caller's thread where the work is not worth more.
template <class Work>
void Share(Pool& pool, int64_t count, bool alone, const Work& work) {
  if (alone) {
    for (int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  pool.Run(static_cast<size_t>(count),
           [](void* argument, size_t i) { (*static_cast<const Work*>(argument))(static_cast<int64_t>(i)); },
           const_cast<Work*>(&work));
}

}  // namespace flashhead
