#include "genie/tcp.h"

#include <sys/socket.h>

namespace genie {
namespace {

constexpr std::uint64_t kTurn = 1u << 20;  // bytes before the other direction has its turn
constexpr std::size_t kMaxStreams = 8;

}  // namespace

bool TcpWire::add(std::unique_ptr<TcpStream> stream) {
  if (streams_.size() >= kMaxStreams) return false;
  streams_.push_back(std::move(stream));
  return true;
}

void TcpWire::receive(Link& link, Turn& turn) {
  std::uint64_t share = kTurn;
  // The first one first: the others may wait for what it brings.
  for (const auto& stream : streams_) {
    stream->look();
    stream->receive(link, turn, share);
    if (turn.ended() || link.peer_closed()) return;
  }
}

void TcpWire::send(Link& link, Turn& turn, Wanted wanted) {
  std::uint64_t share = kTurn;
  for (const auto& stream : streams_) stream->retry();
  streams_[0]->send(link, turn, wanted, share);
  if (wanted != Wanted::All) return;
  for (std::size_t i = 1; i < streams_.size() && !turn.ended(); ++i) {
    std::uint64_t own = kTurn;
    streams_[i]->send(link, turn, Wanted::Chunks, own);
  }
}

bool TcpWire::flushed() const {
  for (const auto& stream : streams_) {
    if (!stream->flushed()) return false;
  }
  return true;
}

void TcpWire::forget(std::uint64_t op) {
  for (const auto& stream : streams_) stream->forget(op);
}

bool TcpWire::arm(Link& link) {
  for (const auto& stream : streams_) {
    if (stream->readable(link)) return false;
  }
  return true;
}

std::size_t TcpWire::watch(pollfd* out) {
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    out[i] = {streams_[i]->fd(), streams_[i]->interest(), 0};
  }
  return streams_.size();
}

void TcpWire::ready(const pollfd* found, std::size_t count) {
  for (std::size_t i = 0; i < count && i < streams_.size(); ++i) {
    streams_[i]->ready(found[i].revents);
  }
}

void TcpWire::shut() {
  for (const auto& stream : streams_) ::shutdown(stream->fd(), SHUT_RDWR);
}

}  // namespace genie
