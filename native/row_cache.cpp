#include "row_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>

namespace flashhead {
namespace {

// Row r has the place r % kPlaces.
constexpr int64_t kPlaces = 512;

std::atomic<int64_t> sources{0};

}  // namespace

FilePart::FilePart(const void* memory, int64_t row_bytes, int64_t rows)
    : memory_(static_cast<const uint8_t*>(memory)), row_bytes_(row_bytes) {
  if (memory) Find(row_bytes * rows);
}

FilePart::~FilePart() {
  if (file_ >= 0) close(file_);
}

// Looks for the memory among the mappings that Linux lists; elsewhere there is no list.
void FilePart::Find(int64_t size) {
  FILE* const maps = fopen("/proc/self/maps", "re");
  if (!maps) return;
  const auto address = reinterpret_cast<uintptr_t>(memory_);
  char line[4400];
  while (fgets(line, sizeof line, maps)) {
    uintptr_t begin = 0, end = 0;
    uint64_t offset = 0, inode = 0;
    unsigned device_major = 0, device_minor = 0;
    int path = 0;
    const int fields = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*4s %" SCNx64 " %x:%x %" SCNu64 " %n", &begin, &end, &offset,
                              &device_major, &device_minor, &inode, &path);
    if (fields != 6 || address < begin || address >= end) continue;
    line[strcspn(line, "\n")] = 0;
    if (line[path] != '/' || address + static_cast<uint64_t>(size) > end) break;
    const int file = open(line + path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    // The path may lead to another file by now.
    if (file >= 0 && !fstat(file, &facts) && facts.st_ino == inode &&
        facts.st_dev == makedev(device_major, device_minor)) {
      file_ = file;
      begin_ = static_cast<int64_t>(offset + (address - begin));
    } else if (file >= 0) {
      close(file);
    }
    break;
  }
  fclose(maps);
}

bool FilePart::Read(int64_t row, uint8_t* to) const {
  if (!row_bytes_) return true;
  if (file_ < 0) {
    memcpy(to, memory_ + row * row_bytes_, static_cast<size_t>(row_bytes_));
    return true;
  }
  for (int64_t done = 0; done < row_bytes_;) {
    const ssize_t got = pread(file_, to + done, static_cast<size_t>(row_bytes_ - done),
                              static_cast<off_t>(begin_ + row * row_bytes_ + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += got;
  }
  return true;
}

RowSource::RowSource(const StoredRows& rows, int64_t count, bool low_only)
    : rows_(rows),
      number_(sources++),
      low_only_(low_only),
      data_(low_only ? nullptr : rows.data, low_only ? 0 : rows.data_bytes(), count),
      low_(rows.low, rows.low ? rows.data_bytes() : 0, count),
      scales_(low_only ? nullptr : rows.scales, low_only || !rows.scales ? 0 : rows.width / kBlock * 2, count) {}

bool RowCache::Get(const RowSource& source, int64_t row, StoredRows* found) {
  const FilePart &data = source.data_, &low = source.low_, &scales = source.scales_;
  // Scales begin at even addresses, as nibbles lie in blocks of 16 bytes.
  const int64_t size = data.row_bytes() + low.row_bytes() + scales.row_bytes();
  if (source_ != source.number_) {
    kept_.assign(kPlaces, -1);
    bytes_.resize(static_cast<size_t>(kPlaces * size));
    source_ = source.number_;
  }
  const int64_t place = row % kPlaces;
  uint8_t* const first = bytes_.data() + place * size;
  uint8_t *const second = first + data.row_bytes(), *const third = second + low.row_bytes();
  if (kept_[place] != row) {
    kept_[place] = -1;
    if (!data.Read(row, first) || !low.Read(row, second) || !scales.Read(row, third)) return false;
    kept_[place] = row;
  }
  *found = source.rows_;
  found->data = source.low_only_ ? source.rows_.Row(row) : first;
  if (found->low) found->low = second;
  if (found->scales) found->scales = source.low_only_ ? source.rows_.Scales(row) : reinterpret_cast<uint16_t*>(third);
  return true;
}

}  // namespace flashhead
