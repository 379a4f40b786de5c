#include "team.h"

#include <algorithm>
#include <atomic>
#include <exception>

namespace flashhead {
namespace {

struct Job {
  void (*task)(void*, size_t);
  void* argument;
  size_t count;
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure = nullptr;
};

void Work(void* data) {
  auto* job = static_cast<Job*>(data);
  for (size_t i; (i = job->next.fetch_add(1, std::memory_order_relaxed)) < job->count;) {
    try {
      job->task(job->argument, i);
    } catch (...) {  // no exception may leave a parallel region
      if (!job->failed.exchange(true)) job->failure = std::current_exception();
      job->next = job->count;
    }
  }
}

}  // namespace

void Team::Run(size_t count, void (*task)(void*, size_t), void* argument) {
  Job job{task, argument, count};
  const auto threads = static_cast<unsigned>(std::min<int64_t>(threads_, static_cast<int64_t>(count)));
  if (region_ && threads > 1) {
    region_(Work, &job, threads, 0);
  } else {
    Work(&job);
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace flashhead
