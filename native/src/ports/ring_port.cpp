#include "genie/ring_port.h"

namespace genie::datagram {

FrameRing::FrameRing(std::size_t slots, std::size_t bytes)
    : bytes_((bytes + 63) & ~std::size_t{63}), frames_(slots * bytes_), sizes_(slots) {}

std::byte* FrameRing::reserve() {
  const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
  if (tail - known_head_ == sizes_.size()) {
    known_head_ = head_.load(std::memory_order_acquire);
    if (tail - known_head_ == sizes_.size()) return nullptr;
  }
  return frames_.data() + (tail & (sizes_.size() - 1)) * bytes_;
}

void FrameRing::publish(std::size_t size) {
  const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
  sizes_[tail & (sizes_.size() - 1)] = static_cast<std::uint32_t>(size);
  tail_.store(tail + 1, std::memory_order_release);
}

bool FrameRing::peek(std::size_t ahead, Received& out) const {
  const std::uint64_t at = head_.load(std::memory_order_relaxed) + ahead;
  if (at == tail_.load(std::memory_order_acquire)) return false;
  const std::size_t slot = at & (sizes_.size() - 1);
  out = {frames_.data() + slot * bytes_, sizes_[slot]};
  return true;
}

void FrameRing::release(std::size_t count) {
  head_.store(head_.load(std::memory_order_relaxed) + count, std::memory_order_release);
}

RingPort::RingPort(std::shared_ptr<FrameRing> in, std::shared_ptr<FrameRing> out, std::size_t bytes)
    : in_(std::move(in)), out_(std::move(out)) {
  traits_.name = "ring";
  traits_.max_datagram = bytes;
  traits_.receive_bytes = in_->slots() * bytes;
}

std::pair<std::unique_ptr<RingPort>, std::unique_ptr<RingPort>> RingPort::pair(
    std::size_t slots, std::size_t max_datagram) {
  auto there = std::make_shared<FrameRing>(slots, max_datagram);
  auto back = std::make_shared<FrameRing>(slots, max_datagram);
  return {std::unique_ptr<RingPort>(new RingPort(back, there, max_datagram)),
          std::unique_ptr<RingPort>(new RingPort(there, back, max_datagram))};
}

std::size_t RingPort::receive(std::span<Received> out) {
  if (held_ != 0) in_->release(held_);
  held_ = 0;
  while (held_ < out.size() && in_->peek(held_, out[held_])) ++held_;
  counters_.received += held_;
  return held_;
}

bool RingPort::acquire(SendSlot& slot) {
  slot.data = out_->reserve();
  if (slot.data == nullptr) ++counters_.exhausted;
  return slot.data != nullptr;
}

void RingPort::commit(const SendSlot&, std::size_t size, const Flow&) {
  out_->publish(size);
  ++counters_.sent;
}

}  // namespace genie::datagram
