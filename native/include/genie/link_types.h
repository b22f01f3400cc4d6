// The values that cross between a link, its wire and the endpoint that drives both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "genie/bytes.h"
#include "genie/courier.h"
#include "genie/events.h"

namespace genie {

// Classes of transfers; lower goes first, strictly. From kWeights on, transfers leave a part of
// every bound free for the classes before them.
inline constexpr int kPriorities = 4;
inline constexpr int kWeights = 2;

// Transfers of one connection that are opened and not yet answered.
inline constexpr std::uint64_t kMaxOpen = 1024;
inline constexpr std::uint32_t kMinChunk = 4u << 10;
inline constexpr std::uint32_t kMaxChunk = 4u << 20;

enum class Kind : std::uint8_t {
  Open = 1,    // message, length · destination
  Data = 2,    // message, offset · payload
  Ack = 3,     // message, offset: bytes verified so far
  Refuse = 4,  // message, offset: number of the error code, length: its detail
  Cancel = 5,  // message
  Grant = 6,   // nothing: carries credit, and shows that its sender lives
  Bye = 7,     // nothing: the sender closes
  Put = 8,     // message, length · destination · all of the payload
};

constexpr bool has_destination(Kind kind) { return kind == Kind::Open || kind == Kind::Put; }
constexpr bool has_payload(Kind kind) { return kind == Kind::Data || kind == Kind::Put; }

// What a poster says about where it wants to write: the fields of its handle.
struct Destination {
  std::uint64_t arena = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t epoch = 0;
  Key key{};
};
inline constexpr std::size_t kDestinationBytes = 48;
static_assert(sizeof(Destination) == kDestinationBytes);

// `credit` is cumulative: how many payload bytes its receiver may have sent in total.
struct Header {
  Kind kind = Kind::Grant;
  std::uint32_t payload = 0;
  std::uint64_t message = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t credit = 0;
};

// Memory of this side that the peer may write (or that is only read from: not `writable`).
struct Region {
  std::byte* base = nullptr;
  std::uint64_t arena = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t epoch = 0;
  Key key{};
  bool writable = false;
  EventSlot arrivals{};
  std::shared_ptr<Bell> bell;  // rung by arrivals, which then are no events
};

// One post. The source stays valid until the operation's last event, or until cancel() returns.
struct Order {
  std::uint64_t op = 0;
  const std::byte* source = nullptr;
  Destination dst{};
  int priority = 1;
};

// What became of a standing order: how often the peer verified it, and how long that took in all.
struct Carried {
  std::uint64_t times = 0;
  std::int64_t ns = 0;
};

// The bounds that both sides of a connection tell each other.
struct Terms {
  std::uint64_t window = 0;
  std::uint32_t chunk = 0;
  std::int64_t stall_ns = 0;
};

struct Counters {
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t sends = 0;
  std::uint64_t in_flight = 0;
  std::uint64_t peak_in_flight = 0;
};

// A frame that no correct peer sends ends its connection; `why` goes to the log and the error.
struct [[nodiscard]] Verdict {
  const char* why = nullptr;

  bool ok() const { return why == nullptr; }
};
inline Verdict violation(const char* why) { return Verdict{why}; }

}  // namespace genie
