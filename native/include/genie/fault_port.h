// A port that damages, repeats, delays or loses what comes in, from a seed. For tests and for
// measuring goodput under loss; it copies every datagram.
#pragma once

#include <cstdint>
#include <memory>
#include <queue>
#include <vector>

#include "genie/fault.h"
#include "genie/port.h"

namespace genie::datagram {

class FaultPort final : public Port {
 public:
  FaultPort(std::unique_ptr<Port> inner, const FaultRates& rates, std::uint64_t seed);

  const PortTraits& traits() const override { return inner_->traits(); }
  PortCounters counters() const override { return inner_->counters(); }
  void enter() override { inner_->enter(); }
  std::size_t receive(std::span<Received> out) override;
  bool acquire(SendSlot& slot) override { return inner_->acquire(slot); }
  void commit(const SendSlot& slot, std::size_t size, const Flow& flow) override {
    inner_->commit(slot, size, flow);
  }
  void abandon(const SendSlot& slot) override { inner_->abandon(slot); }
  std::size_t flush() override { return inner_->flush(); }
  bool up() override { return inner_->up(); }

 private:
  struct Held {
    Nanos due = 0;
    std::uint64_t order = 0;
    std::vector<std::byte> bytes;
    bool operator>(const Held& other) const {
      return due != other.due ? due > other.due : order > other.order;
    }
  };

  std::unique_ptr<Port> inner_;
  Faults faults_;
  std::priority_queue<Held, std::vector<Held>, std::greater<>> late_;
  std::vector<std::vector<std::byte>> shown_;
  std::uint64_t order_ = 0;
};

}  // namespace genie::datagram
