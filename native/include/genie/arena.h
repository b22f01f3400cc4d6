// Memory that processes share: a sealed memfd, in 2 MiB pages where there are some.
//
// The owner is the only one that can ever write it: after it is mapped, the file is sealed against
// new writable mappings, resizing and hole punching (F_SEAL_FUTURE_WRITE stops both the last and
// the first). A peer that maps it can therefore neither change it nor make an access fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace genie {

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

class Arena {
 public:
  // Makes and prefaults an arena of at least `bytes`. Null, and `error` says why, when memory
  // or descriptors do not suffice; too few huge pages only mean small ones.
  static std::unique_ptr<Arena> create(std::size_t bytes, bool huge, std::string& error);
  // Maps another process's arena read-only; takes `fd` in any case. Null, and `error` says why,
  // when it is not a sealed arena of at most `most` bytes.
  static std::unique_ptr<Arena> open(int fd, std::size_t most, std::string& error);

  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  int fd() const { return fd_; }
  // Writable for the owner only.
  std::byte* data() { return base_; }
  const std::byte* data() const { return base_; }
  std::size_t size() const { return size_; }
  bool huge() const { return huge_; }
  bool owned() const { return owned_; }

 private:
  Arena(int fd, std::byte* base, std::size_t size, bool huge, bool owned)
      : fd_(fd), base_(base), size_(size), huge_(huge), owned_(owned) {}

  int fd_;
  std::byte* base_;
  std::size_t size_;
  bool huge_;
  bool owned_;
};

}  // namespace genie
