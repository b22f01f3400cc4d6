#include "genie/fault_port.h"

#include "genie/poller.h"

namespace genie::datagram {

FaultPort::FaultPort(std::unique_ptr<Port> inner, const FaultRates& rates, std::uint64_t seed)
    : inner_(std::move(inner)), faults_(rates, seed), shown_(kBurst) {}

std::size_t FaultPort::receive(std::span<Received> out) {
  const Nanos now = clock_now();
  Received batch[kBurst];
  const std::size_t count = inner_->receive(batch);
  for (std::size_t i = 0; i < count; ++i) {
    const Faults::Verdict verdict = faults_.decide();
    for (unsigned copy = 0; copy < verdict.copies; ++copy) {
      Held held{now + verdict.late[copy], order_++, {batch[i].data, batch[i].data + batch[i].size}};
      held.bytes.resize(faults_.damage(held.bytes));
      late_.push(std::move(held));
    }
  }
  std::size_t shown = 0;
  while (shown < std::min(out.size(), shown_.size()) && !late_.empty() && late_.top().due <= now) {
    shown_[shown] = std::move(const_cast<Held&>(late_.top()).bytes);
    late_.pop();
    out[shown] = {shown_[shown].data(), shown_[shown].size()};
    ++shown;
  }
  return shown;
}

}  // namespace genie::datagram
