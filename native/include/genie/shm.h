// The shared-memory wire: two rings, one in each side's own memory, and the Unix socket over which
// the connection was made.
//
// The socket passes the memory (SCM_RIGHTS), then serves as doorbell, a byte a ring, and tells
// at once when the peer's process is gone. It was chosen over an eventfd because a write to a
// descriptor that a hostile peer supplied can block for ever; a send with MSG_DONTWAIT cannot.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "genie/spsc.h"
#include "genie/wire.h"

namespace genie {

struct ShmOptions {
  std::uint32_t chunk = 0;  // the largest payload of a frame
  std::size_t ring = 0;     // bytes of payload in flight; it should stay in the caches
};

class ShmWire final : public Wire {
 public:
  // Takes the connected Unix socket `fd` in any case; `greeting` goes out first. Null, and `error`
  // says why, when there is not enough memory.
  static std::unique_ptr<ShmWire> create(int fd, std::string greeting, const ShmOptions& options,
                                         std::string& error);
  ~ShmWire() override;

  // Lets the peer read all of this memory in place: long posts from it are copied once, by the
  // receiver. The arena stays referenced as long as the connection. False: there are too many.
  bool share(std::shared_ptr<Arena> arena);

  void receive(Link& link, Turn& turn) override;
  void send(Link& link, Turn& turn, Wanted wanted) override;
  bool flushed() const override { return flushed_; }
  void forget(std::uint64_t) override {}  // what is sent has been copied
  bool spins() const override { return true; }
  bool arm(Link& link) override;
  void disarm() override;
  std::size_t watch(pollfd* out) override;
  void ready(const pollfd* found, std::size_t count) override;
  void shut() override;

 private:
  static constexpr std::size_t kMaxShared = 64;  // arenas of each side

  struct Shared {
    std::shared_ptr<Arena> arena;
    std::uint64_t number;
    bool told = false;
  };

  ShmWire(int fd, std::string greeting, std::unique_ptr<RingWriter> out, std::uint32_t chunk);

  void read_socket(Turn& turn);
  bool take_message(std::string& error);
  void write_socket(Turn& turn);
  bool send_descriptor(const std::string& text, int descriptor, Turn& turn);
  Verdict take(Link& link, const Descriptor& descriptor, Turn& turn);
  void put(const Frame& frame, Turn& turn);
  const Shared* shared_source(const Frame& frame) const;
  void heard_bell();
  void signal();

  int fd_;
  std::uint32_t own_chunk_;
  std::string greeting_;
  std::unique_ptr<RingWriter> out_;
  std::unique_ptr<RingReader> in_;
  bool introduced_ = false;  // our memory has been passed
  std::string pending_;      // an incomplete message of the socket
  int pending_fd_ = -1;
  std::vector<Shared> ours_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Arena>> theirs_;

  std::uint64_t seen_consumed_ = 0;
  std::uint64_t rung_ = 0;
  std::uint64_t idle_ = 0;
  bool look_ = true;  // at the socket
  bool armed_ = false;
  bool blocked_ = false;
  bool flushed_ = true;
  bool eof_ = false;
};

}  // namespace genie
