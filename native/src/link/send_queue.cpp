#include "genie/send_queue.h"

namespace genie {

Outgoing* SendQueue::add(const Order& order) {
  Outgoing* outgoing = nullptr;
  if (free_.empty()) {
    outgoing = &pool_.emplace_back();
  } else {
    outgoing = free_.back();
    free_.pop_back();
    *outgoing = Outgoing{};
  }
  outgoing->order = order;
  outgoing->queued = true;
  ++queued_;
  const auto priority = static_cast<std::size_t>(order.priority);
  (active_[priority].size() < kActive ? active_ : waiting_)[priority].push_back(outgoing);
  return outgoing;
}

Outgoing* SendQueue::head() {
  if (queued_ == 0) return nullptr;
  for (std::size_t priority = 0; priority < active_.size(); ++priority) {
    Line& active = active_[priority];
    while (!active.empty() && active.front()->dropped) {
      recycle(active.front());
      active.pop_front();
      admit(priority);
    }
    if (!active.empty()) return active.front();
  }
  return nullptr;
}

void SendQueue::advance(Outgoing* outgoing) {
  const auto priority = static_cast<std::size_t>(outgoing->order.priority);
  Line& active = active_[priority];
  active.pop_front();
  if (outgoing->exhausted()) {
    outgoing->queued = false;
    --queued_;
    admit(priority);
  } else {
    active.push_back(outgoing);
  }
}

void SendQueue::release(Outgoing* outgoing) {
  if (!outgoing->queued) {
    free_.push_back(outgoing);
    return;
  }
  outgoing->dropped = true;
  // Cancelled transfers would otherwise pile up behind a peer that takes nothing.
  if (++dropped_ > kSweep) sweep();
}

void SendQueue::clear() {
  for (auto* lines : {&active_, &waiting_}) {
    for (auto& line : *lines) line.clear();
  }
  free_.clear();
  pool_.clear();
  queued_ = dropped_ = 0;
}

void SendQueue::admit(std::size_t priority) {
  Line& waiting = waiting_[priority];
  while (!waiting.empty() && active_[priority].size() < kActive) {
    Outgoing* outgoing = waiting.front();
    waiting.pop_front();
    if (outgoing->dropped) {
      recycle(outgoing);
    } else {
      active_[priority].push_back(outgoing);
    }
  }
}

void SendQueue::sweep() {
  for (auto* lines : {&active_, &waiting_}) {
    for (auto& line : *lines) {
      std::erase_if(line, [this](Outgoing* outgoing) {
        if (!outgoing->dropped) return false;
        recycle(outgoing);
        return true;
      });
    }
  }
  for (std::size_t priority = 0; priority < active_.size(); ++priority) admit(priority);
}

// A dropped transfer has left its line.
void SendQueue::recycle(Outgoing* outgoing) {
  outgoing->queued = false;
  --queued_;
  if (dropped_ > 0) --dropped_;
  free_.push_back(outgoing);
}

}  // namespace genie
