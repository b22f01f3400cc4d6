#include "genie/arena.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace genie {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;

std::string failed(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// A memfd of `size` bytes, mapped and touched; null when the system refuses.
std::byte* map_new(std::size_t size, bool huge, int& fd, std::string& error) {
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0u);
  fd = ::memfd_create("genie-arena", flags);
  if (fd < 0) {
    error = failed("memfd_create");
    return nullptr;
  }
  void* base = MAP_FAILED;
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0) {
    error = failed("cannot size the arena");
  } else {
    // With huge pages this reserves them: too few show here and not as SIGBUS at a later access.
    base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) error = failed("cannot map the arena");
  }
  if (base != MAP_FAILED) {
    if (!huge) ::madvise(base, size, MADV_HUGEPAGE);  // only a wish
    // Unlike a first touch, this reports missing memory instead of killing the process.
    if (::madvise(base, size, MADV_POPULATE_WRITE) == 0) return static_cast<std::byte*>(base);
    error = failed("cannot allocate the arena");
    ::munmap(base, size);
  }
  ::close(fd);
  fd = -1;
  return nullptr;
}

}  // namespace

std::unique_ptr<Arena> Arena::create(std::size_t bytes, bool huge, std::string& error) {
  if (bytes == 0 || bytes > SIZE_MAX / 2) {
    error = "an arena has at least one byte";
    return nullptr;
  }
  int fd = -1;
  std::size_t size = round_up(bytes, kHugePage);
  std::byte* base = huge ? map_new(size, true, fd, error) : nullptr;
  const bool got_huge = base != nullptr;
  if (base == nullptr) {
    size = round_up(bytes, static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)));
    base = map_new(size, false, fd, error);
  }
  if (base == nullptr) return nullptr;
  auto arena = std::unique_ptr<Arena>(new Arena(fd, base, size, got_huge, true));
  if (::fcntl(fd, F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0) {
    error = failed("cannot seal the arena");
    return nullptr;
  }
  return arena;
}

std::unique_ptr<Arena> Arena::open(int fd, std::size_t most, std::string& error) {
  struct stat status {};
  struct statfs system {};
  const int seals = ::fcntl(fd, F_GET_SEALS);
  void* base = MAP_FAILED;
  std::size_t size = 0;
  if (seals < 0 || (seals & kSeals) != kSeals) {
    error = "the peer's memory is not sealed";
  } else if (::fstat(fd, &status) != 0 || ::fstatfs(fd, &system) != 0) {
    error = failed("cannot examine the peer's memory");
  } else if (status.st_size <= 0 || static_cast<std::uint64_t>(status.st_size) > most) {
    error = "the peer's memory has an impossible size";
  } else {
    size = static_cast<std::size_t>(status.st_size);
    base = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) error = failed("cannot map the peer's memory");
  }
  // An owner that sealed before it allocated would have us take SIGBUS later.
  if (base != MAP_FAILED && ::madvise(base, size, MADV_POPULATE_READ) != 0) {
    error = failed("the peer's memory is not there");
    ::munmap(base, size);
    base = MAP_FAILED;
  }
  if (base == MAP_FAILED) {
    ::close(fd);
    return nullptr;
  }
  const bool huge = system.f_type == HUGETLBFS_MAGIC;
  return std::unique_ptr<Arena>(new Arena(fd, static_cast<std::byte*>(base), size, huge, false));
}

Arena::~Arena() {
  ::munmap(base_, size_);
  ::close(fd_);
}

}  // namespace genie
