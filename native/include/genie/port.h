// What moves datagrams: a queue of a network device, or a ring within the process. One thread at
// a time calls a port; no call blocks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "genie/session.h"

namespace genie::datagram {

// Where a session's datagrams go: addresses as they stand in a frame (big-endian).
struct Flow {
  std::array<std::uint8_t, 6> local_mac{};
  std::array<std::uint8_t, 6> peer_mac{};
  std::uint32_t local_ip = 0;
  std::uint32_t peer_ip = 0;
  std::uint16_t local_udp = 0;
  std::uint16_t peer_udp = 0;
};

struct Received {
  const std::byte* data = nullptr;
  std::size_t size = 0;
};

struct SendSlot {
  std::byte* data = nullptr;  // room for traits().max_datagram bytes
  void* token = nullptr;
};

struct PortTraits {
  std::string name;  // "ring", or the driver's
  std::size_t max_datagram = 0;
  // Bytes of datagrams that may wait here unread; a peer that sends no more loses none of them.
  std::size_t receive_bytes = 0;
  int wake_fd = -1;  // readable when something has come; -1: a sleeper must look by itself
};

// The credit that one session may be given: half of what may wait unread, because other sessions
// and retransmissions need room too.
inline std::uint64_t credit_of(const PortTraits& traits, std::size_t max_datagram) {
  return std::max<std::uint64_t>(traits.receive_bytes / 2, 4 * max_datagram);
}

struct PortCounters {
  std::uint64_t received = 0;
  std::uint64_t sent = 0;
  std::uint64_t foreign = 0;    // frames that are none of ours
  std::uint64_t missed = 0;     // dropped by the device for want of room
  std::uint64_t exhausted = 0;  // times that no slot was free
};

class Port {
 public:
  static constexpr std::size_t kBurst = 32;

  virtual ~Port() = default;

  virtual const PortTraits& traits() const = 0;
  virtual PortCounters counters() const = 0;
  // Whoever is going to call the others from a new thread says so first.
  virtual void enter() {}
  // Takes what has come; it stays valid until the next call.
  virtual std::size_t receive(std::span<Received> out) = 0;
  // False when there is no slot: nothing is to be sealed now.
  virtual bool acquire(SendSlot& slot) = 0;
  virtual void commit(const SendSlot& slot, std::size_t size, const Flow& flow) = 0;
  virtual void abandon(const SendSlot& slot) = 0;
  // Hands to the device what was committed; returns how much still waits for room.
  virtual std::size_t flush() = 0;
  // False while the device has no carrier.
  virtual bool up() { return true; }
};

}  // namespace genie::datagram
