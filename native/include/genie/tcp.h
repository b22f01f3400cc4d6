// The kernel TCP wire: one or several connected sockets, all under one link.
//
// Control frames and the beginnings of transfers go over the first stream, so they arrive in
// order; data of long transfers is striped over all. A stream whose data comes before its
// transfer's beginning is left unread until that is there.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "genie/tcp_frame.h"
#include "genie/wire.h"

namespace genie {

class TcpStream {
 public:
  // Takes the connected socket `fd`, in non-blocking mode. Secrets are empty for clear frames.
  TcpStream(int fd, std::uint32_t chunk);
  ~TcpStream();
  TcpStream(const TcpStream&) = delete;
  TcpStream& operator=(const TcpStream&) = delete;

  bool start(std::span<const std::byte> send_secret, std::span<const std::byte> receive_secret);
  // Goes out before any frame.
  void greet(const std::string& greeting);

  void receive(Link& link, Turn& turn, std::uint64_t& share);
  void send(Link& link, Turn& turn, Wanted wanted, std::uint64_t& share);
  void forget(std::uint64_t op);

  int fd() const { return fd_; }
  // Look at the socket again, whatever the last look found: for those who spin.
  void look() { readable_ = true; }
  void retry() { blocked_ = false; }
  bool flushed() const { return pieces_.empty(); }
  // What to wait for; called before each wait.
  short interest();
  void ready(short found);
  // True when receive() would do something without waiting.
  bool readable(const Link& link) const { return readable_ && !(parked_ && link.early(header_)); }

 private:
  struct Piece {
    const std::byte* at;
    std::size_t size;
    std::uint64_t op;  // 0: our own bytes
  };

  bool fill(Link& link, Turn& turn, Wanted wanted);
  bool flush(Link& link, Turn& turn);
  void own(const std::byte* at, std::size_t size);

  bool step(Link& link, Turn& turn);
  bool step_header(Link& link, Turn& turn);
  bool step_payload(Link& link);
  bool step_tag(Link& link, Turn& turn);
  bool accept(Link& link, Turn& turn);
  bool finish(Link& link, Turn& turn, bool intact);
  void place(Link& link);
  ssize_t pull(Link& link, Turn& turn);

  int fd_;
  std::uint32_t chunk_;

  // sending: a batch of frames is built whole, then sent whole
  FrameWriter writer_;
  std::vector<std::byte> batch_;
  std::size_t batched_ = 0;
  std::deque<Piece> pieces_;
  std::deque<std::vector<std::byte>> rescued_;
  bool blocked_ = false;

  // receiving
  FrameReader reader_;
  std::vector<std::byte> stage_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  enum class State { Header, Parked, Payload, Tag } state_ = State::Header;
  Header header_{};
  Destination dst_{};
  std::byte* place_ = nullptr;    // of the payload's first byte
  std::uint64_t generation_ = 0;  // of the link, when it gave the place
  std::size_t left_ = 0;
  bool sound_ = true;
  bool readable_ = true;
  bool parked_ = false;
};

class TcpWire final : public Wire {
 public:
  explicit TcpWire(std::unique_ptr<TcpStream> first) { streams_.push_back(std::move(first)); }

  // One more stream of the same connection; false when there are enough.
  bool add(std::unique_ptr<TcpStream> stream);

  void receive(Link& link, Turn& turn) override;
  void send(Link& link, Turn& turn, Wanted wanted) override;
  bool flushed() const override;
  void forget(std::uint64_t op) override;
  bool spins() const override { return true; }
  bool arm(Link& link) override;
  void disarm() override {}
  std::size_t watch(pollfd* out) override;
  void ready(const pollfd* found, std::size_t count) override;
  void shut() override;

 private:
  std::vector<std::unique_ptr<TcpStream>> streams_;
};

}  // namespace genie
