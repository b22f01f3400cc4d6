// How frames of one link travel. An endpoint drives it, under its lock.
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "genie/link.h"

namespace genie {

// What one call did. `code` is the number of the GENnnnn that ends the connection, 0 if it goes on.
struct Turn {
  bool received = false;  // bytes came
  bool sent = false;      // bytes went
  bool more = false;      // the call stopped because its share was used up
  std::uint16_t code = 0;
  std::string text;

  bool ended() const { return code != 0; }
  void end(std::uint16_t number, std::string why) {
    if (code != 0) return;
    code = number;
    text = std::move(why);
  }
};

class Wire {
 public:
  static constexpr std::size_t kMaxDescriptors = 16;

  virtual ~Wire() = default;

  // Takes what is there and gives it to the link, up to a bounded share.
  virtual void receive(Link& link, Turn& turn) = 0;
  // Sends what the link has, as long as there is room, up to a bounded share.
  virtual void send(Link& link, Turn& turn, Wanted wanted) = 0;
  // True when nothing that was taken from the link still waits for room.
  virtual bool flushed() const = 0;
  // The operation's source must not be read any more: copies what is half sent.
  virtual void forget(std::uint64_t op) = 0;

  // Whether spinning on receive() is cheap, and answers come within microseconds.
  virtual bool spins() const = 0;
  // Announces that this side will sleep until a descriptor is ready. False when there is work.
  virtual bool arm(Link& link) = 0;
  virtual void disarm() = 0;
  // The descriptors to wait on, and what to wait for; then what poll(2) found.
  virtual std::size_t watch(pollfd* out) = 0;
  virtual void ready(const pollfd* found, std::size_t count) = 0;
  // Lets the peer see the end now; descriptors stay open until destruction, because another
  // thread may be waiting on them.
  virtual void shut() = 0;
};

}  // namespace genie
