// A port within the process: two rings of frames between two ends.
#pragma once

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "genie/port.h"

namespace genie::datagram {

// Frames from one thread to another. One writes, one reads, nobody waits.
class FrameRing {
 public:
  // `slots` must be a power of two.
  FrameRing(std::size_t slots, std::size_t bytes);

  // Where the next frame goes, or null when the ring is full.
  std::byte* reserve();
  void publish(std::size_t size);
  // The frame `ahead` behind the oldest, or nothing.
  bool peek(std::size_t ahead, Received& out) const;
  void release(std::size_t count);
  std::size_t slots() const { return sizes_.size(); }

 private:
  std::size_t bytes_;
  std::vector<std::byte> frames_;
  std::vector<std::uint32_t> sizes_;
  alignas(64) std::atomic<std::uint64_t> head_{0};  // written by the reader
  alignas(64) std::atomic<std::uint64_t> tail_{0};  // written by the writer
  std::uint64_t known_head_ = 0;
};

class RingPort final : public Port {
 public:
  static std::pair<std::unique_ptr<RingPort>, std::unique_ptr<RingPort>> pair(
      std::size_t slots, std::size_t max_datagram);

  const PortTraits& traits() const override { return traits_; }
  PortCounters counters() const override { return counters_; }
  std::size_t receive(std::span<Received> out) override;
  bool acquire(SendSlot& slot) override;
  void commit(const SendSlot& slot, std::size_t size, const Flow& flow) override;
  void abandon(const SendSlot&) override {}
  std::size_t flush() override { return 0; }

 private:
  RingPort(std::shared_ptr<FrameRing> in, std::shared_ptr<FrameRing> out, std::size_t bytes);

  PortTraits traits_;
  PortCounters counters_;
  std::shared_ptr<FrameRing> in_;
  std::shared_ptr<FrameRing> out_;
  std::size_t held_ = 0;  // frames handed out by the last receive()
};

}  // namespace genie::datagram
