#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "genie/tcp.h"

namespace genie {
namespace {

constexpr std::size_t kStage = 64u << 10;
constexpr std::size_t kSmall = 8u << 10;   // payloads that are copied rather than gathered
constexpr std::size_t kBatch = 64u << 10;  // of own bytes, beside one sealed chunk
constexpr std::size_t kGather = 64;
constexpr std::size_t kPull = 256u << 10;  // received at once: summed while it is in the cache

std::string describe(int error) {
  return "the connection failed: " + std::generic_category().message(error);
}

// Whether the connection stays on this machine's loopback device.
bool on_loopback(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return false;
  if (peer.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer);
    return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
  }
  if (peer.ss_family != AF_INET6) return false;
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

// That device has no queue and loses nothing. A system's choice that paces (bbr) only costs
// there: timers, and half of the throughput measured. A refusal leaves the system's choice.
void unpace(int fd) {
  static constexpr char kPlain[] = "reno";
  if (on_loopback(fd)) ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kPlain, sizeof kPlain - 1);
}

}  // namespace

TcpStream::TcpStream(int fd, std::uint32_t chunk) : fd_(fd), chunk_(chunk), stage_(kStage) {
  unpace(fd);
}

TcpStream::~TcpStream() { ::close(fd_); }

bool TcpStream::start(std::span<const std::byte> send_secret,
                      std::span<const std::byte> receive_secret) {
  if (!writer_.start(send_secret) || !reader_.start(receive_secret)) return false;
  const std::size_t frame = kMaxHeader + chunk_ + kFrameTrailer;
  batch_.resize(kBatch + (writer_.sealed() ? frame : kMaxHeader + kSmall));
  return true;
}

void TcpStream::greet(const std::string& greeting) {
  if (greeting.empty()) return;
  std::memcpy(batch_.data(), greeting.data(), greeting.size());
  own(batch_.data(), greeting.size());
}

short TcpStream::interest() {
  return static_cast<short>((state_ == State::Parked ? 0 : POLLIN) | (blocked_ ? POLLOUT : 0));
}

void TcpStream::ready(short found) {
  if ((found & (POLLIN | POLLHUP | POLLERR)) != 0) readable_ = true;
  if ((found & (POLLOUT | POLLERR | POLLHUP)) != 0) blocked_ = false;
}

// -- sending ----------------------------------------------------------------------------------

// Appends own bytes of the batch, joined to what precedes them.
void TcpStream::own(const std::byte* at, std::size_t size) {
  batched_ += size;
  if (!pieces_.empty() && pieces_.back().op == 0 && pieces_.back().at + pieces_.back().size == at) {
    pieces_.back().size += size;
  } else {
    pieces_.push_back({at, size, 0});
  }
}

void TcpStream::send(Link& link, Turn& turn, Wanted wanted, std::uint64_t& share) {
  for (;;) {
    if (pieces_.empty()) {
      if (share == 0) {
        turn.more = true;
        return;
      }
      if (!fill(link, turn, wanted)) return;
    }
    std::size_t size = 0;
    for (const Piece& piece : pieces_) size += piece.size;
    if (!flush(link, turn)) return;
    share -= std::min<std::uint64_t>(share, size);
  }
}

// Builds the next batch; false when there is nothing to send.
bool TcpStream::fill(Link& link, Turn& turn, Wanted wanted) {
  batched_ = 0;
  rescued_.clear();
  std::size_t gathered = 0;
  Frame frame;
  const bool sealed = writer_.sealed();
  while (batched_ < kBatch && gathered < chunk_ && pieces_.size() < kGather - 2 &&
         link.next(frame, ~std::uint64_t{0}, wanted)) {
    std::byte* out = batch_.data() + batched_;
    const std::size_t wrote = writer_.write(out, frame.header, frame.dst, frame.data);
    if (wrote == 0) {
      turn.end(610, "the crypto library failed");
      return false;
    }
    own(out, wrote);
    const std::size_t payload = frame.header.payload;
    if (sealed || payload == 0) continue;
    if (payload <= kSmall) {
      std::memcpy(batch_.data() + batched_, frame.data, payload);
      own(batch_.data() + batched_, payload);
    } else {
      pieces_.push_back({frame.data, payload, frame.op});
      gathered += payload;
    }
  }
  return !pieces_.empty();
}

// Sends what is there; false when the socket takes no more, or has failed.
bool TcpStream::flush(Link& link, Turn& turn) {
  while (!pieces_.empty()) {
    if (blocked_) return false;
    std::array<iovec, kGather> parts{};
    std::size_t count = 0;
    std::size_t total = 0;
    for (const Piece& piece : pieces_) {
      if (count == kGather) break;
      parts[count++] = {const_cast<std::byte*>(piece.at), piece.size};
      total += piece.size;
    }
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        blocked_ = true;
      } else {
        turn.end(610, describe(errno));
      }
      return false;
    }
    turn.sent = true;
    ++link.counters().sends;
    link.counters().bytes_sent += static_cast<std::uint64_t>(sent);
    auto left = static_cast<std::size_t>(sent);
    blocked_ = left < total;  // spares the call that would say so
    while (left > 0) {
      Piece& head = pieces_.front();
      const std::size_t step = std::min(left, head.size);
      head.at += step;
      head.size -= step;
      left -= step;
      if (head.size == 0) pieces_.pop_front();
    }
  }
  return true;
}

void TcpStream::forget(std::uint64_t op) {
  for (Piece& piece : pieces_) {
    if (piece.op != op || op == 0) continue;
    // The frame is announced, so its bytes must follow: from a copy.
    rescued_.emplace_back(piece.at, piece.at + piece.size);
    piece.at = rescued_.back().data();
    piece.op = 0;
  }
}

// -- receiving --------------------------------------------------------------------------------

void TcpStream::receive(Link& link, Turn& turn, std::uint64_t& share) {
  while (step(link, turn)) {
  }
  while (readable_ && !turn.ended() && !link.peer_closed() && state_ != State::Parked) {
    if (share == 0) {
      turn.more = true;
      return;
    }
    const ssize_t got = pull(link, turn);
    if (got <= 0) return;
    turn.received = true;
    link.counters().bytes_received += static_cast<std::uint64_t>(got);
    share -= std::min<std::uint64_t>(share, static_cast<std::uint64_t>(got));
    while (step(link, turn)) {
    }
  }
}

// Receives once: a payload straight to its place, and what follows it to the stage. The bytes
// received, 0 when there are none now, or the connection has ended (`turn` says so).
ssize_t TcpStream::pull(Link& link, Turn& turn) {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ > 0) {
    std::memmove(stage_.data(), stage_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  place(link);
  std::array<iovec, 2> parts{};
  std::size_t direct = 0;
  int count = 0;
  // The stage is empty when a payload is incomplete: all that was there has been used.
  if (state_ == State::Payload && place_ != nullptr) {
    direct = std::min(left_, kPull);
    parts[0] = {place_ + (header_.payload - left_), direct};
    count = 1;
  }
  // Behind a payload only as much as makes the next calls fewer, not the copies more.
  if (direct == 0 || direct == left_) {
    const std::size_t room = direct == 0 ? stage_.size() - end_ : 4096;
    parts[count++] = {stage_.data() + end_, room};
  }
  std::size_t wanted = 0;
  for (int i = 0; i < count; ++i) wanted += parts[i].iov_len;
  ssize_t got = -1;
  do {
    got = ::readv(fd_, parts.data(), count);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    readable_ = false;
    if (errno != EAGAIN && errno != EWOULDBLOCK) turn.end(610, describe(errno));
    return 0;
  }
  if (got == 0) {
    const bool idle = state_ == State::Header && begin_ == end_;
    turn.end(610, idle ? "the connection ended without a farewell"
                       : "the connection ended in the middle of a frame without a farewell");
    return 0;
  }
  const auto bytes = static_cast<std::size_t>(got);
  if (bytes < wanted) readable_ = false;  // spares the call that would say so
  if (direct > 0) {
    const std::size_t here = std::min(bytes, direct);
    std::byte* at = place_ + (header_.payload - left_);
    sound_ = reader_.add(at, at, here) && sound_;
    left_ -= here;
    end_ += bytes - here;
  } else {
    end_ += bytes;
  }
  return got;
}

// Does one thing with the staged bytes; false when more are needed.
bool TcpStream::step(Link& link, Turn& turn) {
  if (turn.ended() || link.peer_closed()) return false;
  switch (state_) {
    case State::Header:
      return step_header(link, turn);
    case State::Parked:
      if (link.early(header_)) return false;
      return accept(link, turn);
    case State::Payload:
      return step_payload(link);
    case State::Tag:
      return step_tag(link, turn);
  }
  return false;
}

bool TcpStream::step_header(Link& link, Turn& turn) {
  if (end_ - begin_ < kPlainBytes) return false;
  const std::byte* at = stage_.data() + begin_;
  const std::size_t size = FrameReader::announced(at);
  if (size == 0) {
    turn.end(631, "the peer broke the protocol: a frame of unknown type or version");
    return false;
  }
  if (end_ - begin_ < size) return false;
  if (const Verdict verdict = reader_.read(at, header_, dst_); !verdict.ok()) {
    turn.end(631, std::string("the peer broke the protocol: ") + verdict.why);
    return false;
  }
  begin_ += size;
  if (link.early(header_)) {
    state_ = State::Parked;
    parked_ = true;
    return false;
  }
  return accept(link, turn);
}

bool TcpStream::accept(Link& link, Turn& turn) {
  state_ = State::Header;
  parked_ = false;
  if (const Verdict verdict = link.accept(header_, dst_, place_); !verdict.ok()) {
    turn.end(631, std::string("the peer broke the protocol: ") + verdict.why);
    return false;
  }
  if (!has_payload(header_.kind)) return true;
  generation_ = link.generation();
  left_ = header_.payload;
  sound_ = true;
  if (left_ == 0) return finish(link, turn, true);
  sound_ = reader_.begin();
  state_ = State::Payload;
  return true;
}

// Regions may have been withdrawn since the place was given.
void TcpStream::place(Link& link) {
  if (place_ == nullptr || generation_ == link.generation()) return;
  generation_ = link.generation();
  place_ = link.place(header_);
}

bool TcpStream::step_payload(Link& link) {
  if (left_ == 0) {
    state_ = State::Tag;
    return true;
  }
  const std::size_t count = std::min(end_ - begin_, left_);
  if (count == 0) return false;
  place(link);
  if (place_ != nullptr) {
    std::byte* to = place_ + (header_.payload - left_);
    const std::byte* from = stage_.data() + begin_;
    if (!reader_.sealed()) std::memcpy(to, from, count);
    sound_ = reader_.add(to, from, count) && sound_;
  }
  begin_ += count;
  left_ -= count;
  return true;
}

bool TcpStream::step_tag(Link& link, Turn& turn) {
  if (end_ - begin_ < reader_.tag_bytes()) return false;
  place(link);
  // What went nowhere was not looked at.
  const bool intact = place_ == nullptr || (sound_ && reader_.finish(stage_.data() + begin_));
  begin_ += reader_.tag_bytes();
  return finish(link, turn, intact);
}

bool TcpStream::finish(Link& link, Turn& turn, bool intact) {
  state_ = State::Header;
  place_ = nullptr;
  if (const Verdict verdict = link.landed(header_, intact); !verdict.ok()) {
    turn.end(631, std::string("the peer broke the protocol: ") + verdict.why);
    return false;
  }
  return true;
}

}  // namespace genie
