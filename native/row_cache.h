// Single rows of a table that is mapped from a file, without touching the mapping.
//
// A page fault makes 64 KiB around a row resident, and rows that are wanted one by one lie all over the table: soon all
// of it counts. Read from the file they take the memory of a few hundred rows, which are kept: texts repeat themselves.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "stored_rows.h"

namespace flashhead {

// Memory that may be mapped from a file, unchanged; one that cannot be found out is read as memory.
class FilePart {
 public:
  FilePart(const void* memory, int64_t row_bytes, int64_t rows);
  ~FilePart();
  FilePart(const FilePart&) = delete;
  FilePart& operator=(const FilePart&) = delete;

  int64_t row_bytes() const { return row_bytes_; }
  // False where the file cannot be read any more.
  bool Read(int64_t row, uint8_t* to) const;

 private:
  void Find(int64_t size);

  const uint8_t* memory_ = nullptr;
  int64_t row_bytes_ = 0;
  int file_ = -1;
  int64_t begin_ = 0;  // in the file
};

// Where single rows of a table of `count` come from: their low nibbles alone from the file, or all of them.
class RowSource {
 public:
  RowSource(const StoredRows& rows, int64_t count, bool low_only);

 private:
  friend class RowCache;

  const StoredRows rows_;
  const int64_t number_;  // of the source: what is kept of another one's rows is not this one's
  const bool low_only_;
  const FilePart data_, low_, scales_;
};

// The source of the low nibbles of a table that stays where it is, such as an initializer; looked for when it is wanted.
class KeptSource {
 public:
  const RowSource* Of(const StoredRows& rows, int64_t count) const {
    std::call_once(once_, [&] { source_ = std::make_unique<RowSource>(rows, count, true); });
    return source_.get();
  }

 private:
  mutable std::once_flag once_;
  mutable std::unique_ptr<RowSource> source_;
};

// Rows that were read lately, for one thread at a time.
class RowCache {
 public:
  // Row 0 of `found` is that row, until the next call. False where the file cannot be read any more.
  bool Get(const RowSource& source, int64_t row, StoredRows* found);

 private:
  int64_t source_ = -1;
  std::vector<int64_t> kept_;
  std::vector<uint8_t> bytes_;
};

}  // namespace flashhead
