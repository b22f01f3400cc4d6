#include "genie/shm.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "genie/copy.h"

namespace genie {
namespace {

constexpr std::uint64_t kTurn = 1u << 20;       // bytes before the other direction has its turn
constexpr std::uint64_t kLarge = 4096;          // payloads worth a publication of their own
constexpr std::uint64_t kStreaming = 4u << 20;  // messages that would only flush the caches
constexpr std::uint64_t kPatience = 4096;       // idle looks at the ring before one at the socket

}  // namespace

std::unique_ptr<ShmWire> ShmWire::create(int fd, std::string greeting, const ShmOptions& options,
                                         std::string& error) {
  // Room for two chunks at least, so that one is filled while the other is read.
  const std::size_t bytes = std::max<std::size_t>(options.ring, 2u * (options.chunk + 4096u));
  auto out = RingWriter::create(2048, bytes, error);
  if (out == nullptr) {
    ::close(fd);
    return nullptr;
  }
  return std::unique_ptr<ShmWire>(
      new ShmWire(fd, std::move(greeting), std::move(out), options.chunk));
}

ShmWire::ShmWire(int fd, std::string greeting, std::unique_ptr<RingWriter> out, std::uint32_t chunk)
    : fd_(fd), own_chunk_(chunk), greeting_(std::move(greeting)), out_(std::move(out)) {}

ShmWire::~ShmWire() {
  if (pending_fd_ >= 0) ::close(pending_fd_);
  ::close(fd_);
}

bool ShmWire::share(std::shared_ptr<Arena> arena) {
  for (const Shared& shared : ours_) {
    if (shared.arena == arena) return true;
  }
  if (ours_.size() >= kMaxShared) return false;
  ours_.push_back({std::move(arena), ours_.size() + 1});
  return true;
}

// -- receiving --------------------------------------------------------------------------------

void ShmWire::receive(Link& link, Turn& turn) {
  if (look_ || ++idle_ % kPatience == 0) read_socket(turn);
  if (turn.ended()) return;
  if (in_ == nullptr) {
    if (eof_) turn.end(610, "the connection ended without a farewell");
    return;
  }
  std::uint64_t share = kTurn;
  bool took = false;
  Descriptor descriptor;
  while (in_->peek(descriptor)) {
    if (share == 0) {
      turn.more = true;
      break;
    }
    const Verdict verdict = take(link, descriptor, turn);
    if (!verdict.ok()) {
      turn.end(631, std::string("the peer broke the protocol: ") + verdict.why);
      return;
    }
    share -= std::min<std::uint64_t>(share, descriptor.payload + 256);
    took = true;
    if (descriptor.payload >= kLarge) {
      out_->control().consumed.store(in_->taken());
      signal();
    }
    if (link.peer_closed()) break;
  }
  if (took) {
    turn.received = true;
    idle_ = 0;
    out_->control().consumed.store(in_->taken());
    signal();
  } else if (eof_) {
    turn.end(610, "the connection ended without a farewell");
  }
}

Verdict ShmWire::take(Link& link, const Descriptor& descriptor, Turn& turn) {
  const auto kind = static_cast<Kind>(descriptor.kind);
  if (descriptor.kind < 1 || descriptor.kind > static_cast<int>(Kind::Put)) {
    return violation("a frame of unknown type");
  }
  const Header header{kind,
                      descriptor.payload,
                      descriptor.message,
                      descriptor.offset,
                      descriptor.length,
                      descriptor.credit};
  const std::uint64_t head = has_destination(kind) ? kDestinationBytes : 0;
  const bool in_ring = descriptor.arena == 0;
  const std::uint64_t bytes = head + (in_ring ? header.payload : 0);
  if (in_ring ? !in_->within(descriptor, bytes) : head != 0) {
    return violation("a descriptor out of its ring");
  }
  const std::byte* elsewhere = nullptr;
  if (!in_ring) {
    auto found = theirs_.find(descriptor.arena);
    if (found == theirs_.end()) {
      read_socket(turn);  // its announcement was sent before, but by another way
      if (turn.ended()) return {};
      found = theirs_.find(descriptor.arena);
    }
    if (found == theirs_.end() || descriptor.position > found->second->size() ||
        header.payload > found->second->size() - descriptor.position) {
      return violation("a descriptor out of its arena");
    }
    elsewhere = static_cast<const Arena&>(*found->second).data() + descriptor.position;
  }
  Destination destination;
  if (head != 0) {
    in_->copy(descriptor.position, reinterpret_cast<std::byte*>(&destination), head, false);
  }
  std::byte* place = nullptr;
  if (const Verdict verdict = link.accept(header, destination, place); !verdict.ok()) {
    return verdict;
  }
  const bool streaming = header.length >= kStreaming;
  if (place != nullptr && header.payload != 0) {
    if (elsewhere != nullptr) {
      (streaming ? copy_streaming : copy)(place, elsewhere, header.payload);
    } else {
      in_->copy(descriptor.position + head, place, header.payload, streaming);
    }
  }
  link.counters().bytes_received += sizeof(Descriptor) + head + header.payload;
  in_->advance(bytes);
  return has_payload(kind) ? link.landed(header, true) : Verdict{};
}

// -- sending ----------------------------------------------------------------------------------

void ShmWire::send(Link& link, Turn& turn, Wanted wanted) {
  if (!introduced_ || !greeting_.empty() || (!ours_.empty() && !ours_.back().told)) {
    write_socket(turn);
  }
  flushed_ = false;
  blocked_ = false;
  // Nobody reads the ring before the peer's own memory is here to hear of it.
  if (in_ == nullptr) return;
  std::uint64_t share = kTurn;
  bool put_any = false;
  Frame frame;
  for (;;) {
    if (share == 0) {
      turn.more = true;
      break;
    }
    // The peer's count is looked at when room gets short only: its line belongs in the peer's
    // cache.
    if (!out_->fits(kDestinationBytes + own_chunk_)) {
      seen_consumed_ = in_->control().consumed.load();
      if (!out_->reclaim(seen_consumed_)) {
        turn.end(631, "the peer broke the protocol: it has taken more than was sent");
        return;
      }
      if (!out_->fits(kDestinationBytes)) {
        blocked_ = true;
        break;
      }
    }
    if (!link.next(frame, out_->room() - kDestinationBytes, wanted)) {
      // Otherwise it waits for credit, which comes as a descriptor.
      blocked_ = !out_->fits(kDestinationBytes + own_chunk_) && link.has_outgoing();
      flushed_ = true;
      break;
    }
    put(frame, turn);
    link.counters().bytes_sent += sizeof(Descriptor) + frame.header.payload +
                                  (has_destination(frame.header.kind) ? kDestinationBytes : 0);
    put_any = true;
    share -= std::min<std::uint64_t>(share, frame.header.payload + 256);
    if (frame.header.payload >= kLarge) signal();
  }
  if (put_any) {
    turn.sent = true;
    ++link.counters().sends;
    signal();
  }
}

void ShmWire::put(const Frame& frame, Turn&) {
  const Header& header = frame.header;
  Descriptor descriptor;
  descriptor.kind = static_cast<std::uint8_t>(header.kind);
  descriptor.payload = header.payload;
  descriptor.message = header.message;
  descriptor.offset = header.offset;
  descriptor.length = header.length;
  descriptor.credit = header.credit;
  if (has_destination(header.kind)) {
    out_->append(reinterpret_cast<const std::byte*>(&frame.dst), kDestinationBytes);
  }
  if (header.payload != 0) {
    if (const Shared* shared = shared_source(frame)) {
      descriptor.arena = shared->number;
      descriptor.position = static_cast<std::uint64_t>(frame.data - shared->arena->data());
    } else {
      out_->append(frame.data, header.payload);
    }
  }
  out_->publish(descriptor);
}

const ShmWire::Shared* ShmWire::shared_source(const Frame& frame) const {
  if (frame.header.kind != Kind::Data) return nullptr;
  for (const Shared& shared : ours_) {
    const std::byte* base = shared.arena->data();
    if (shared.told && frame.data >= base && frame.data < base + shared.arena->size()) {
      return &shared;
    }
  }
  return nullptr;
}

// -- sleeping ---------------------------------------------------------------------------------

bool ShmWire::arm(Link& link) {
  (void)link;
  if (!armed_) {
    armed_ = true;
    auto& sleeping = out_->control().sleeping;
    sleeping.store(sleeping.load(std::memory_order_relaxed) + 1);
  }
  if (look_) return false;
  if (in_ == nullptr) return true;
  if (in_->ready()) return false;
  return !blocked_ || in_->control().consumed.load() == seen_consumed_;
}

void ShmWire::disarm() {
  if (!armed_) return;
  armed_ = false;
  auto& sleeping = out_->control().sleeping;
  sleeping.store(sleeping.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

std::size_t ShmWire::watch(pollfd* out) {
  const bool waits = !introduced_ || !greeting_.empty();
  out[0] = {fd_, static_cast<short>(POLLIN | (waits ? POLLOUT : 0)), 0};
  return 1;
}

void ShmWire::ready(const pollfd* found, std::size_t) {
  if (found->revents != 0) look_ = true;
}

void ShmWire::shut() { ::shutdown(fd_, SHUT_RDWR); }

}  // namespace genie
