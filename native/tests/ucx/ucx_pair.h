// Endpoints that are joined by UCX in one process, and a peer that sends what a test tells it to.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "genie/tcp_frame.h"
#include "genie/ucx.h"
#include "pairs.h"

namespace genie::test {

Pair ucx_pair(bool sealed, bool network, const Terms& terms = kTerms);
const UcxFactory& ucx_factory();

// Holds the session's secrets and speaks UCX, but decides itself what it says.
class Liar : private UcxSink {
 public:
  // `victim` gets a wire whose peer this is.
  Liar(Side& victim, bool sealed, const Terms& terms = kTerms);
  ~Liar();
  Liar(const Liar&) = delete;
  Liar& operator=(const Liar&) = delete;

  // False when the victim has hung up instead.
  bool introduce(bool flip = false);
  // A whole frame that puts `data` into `region`, as the next of its stream.
  std::vector<std::byte> put(const std::vector<std::byte>& data, const Region& region);
  UcxTag tag(std::uint64_t sequence) const { return {token_, sequence}; }
  // Sends a message; announced messages are not waited for.
  void say(const UcxTag& tag, const std::vector<std::byte>& message, bool push);
  void work();

 private:
  void pushed(const UcxTag&, const std::byte*, std::size_t) override {}
  bool announced(const UcxTag&, std::size_t, void*) override { return false; }
  void fetched(std::uint64_t, bool) override {}
  void sent(std::uint64_t) override {}

  std::vector<std::byte> mine_;
  std::vector<std::byte> theirs_;
  std::array<std::byte, 16> token_{};
  FrameWriter writer_;
  std::uint64_t message_ = 0;
  int fd_ = -1;
  std::unique_ptr<UcxPort, UcxRelease> port_;
  std::deque<std::pair<UcxTag, std::vector<std::byte>>> said_;  // UCX reads them later
};

}  // namespace genie::test
