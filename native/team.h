// Threads of a process that has an OpenMP runtime already, such as PyTorch's: a second pool beside it would compete for
// its processors while its threads still spin.
#pragma once

#include "head.h"

namespace flashhead {

// GOMP_parallel of the runtime in the process: calls function(data) on `threads` threads, the caller's among them. GNU's
// own, Intel's and LLVM's runtimes have it.
using ParallelRegion = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

class Team : public Pool {
 public:
  // Without a region everything runs on the caller's thread.
  Team(ParallelRegion region, int64_t threads) : region_(region), threads_(threads) {}
  void Run(size_t count, void (*task)(void*, size_t), void* argument) override;

 private:
  ParallelRegion region_;
  int64_t threads_;
};

}  // namespace flashhead
