#include "genie/events.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <ctime>
#include <utility>

namespace genie {

EventQueue::EventQueue() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

EventQueue::~EventQueue() { close(); }

void EventQueue::close() {
  const std::lock_guard hold(lock_);
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

// Callers hold the lock.
void EventQueue::push(const Event& event) {
  events_.push_back(event);
  pending_.store(true, std::memory_order_release);
  if (event.type != EventType::Progressed) urgent_.store(true, std::memory_order_release);
  if (watchers_ == 0) signal();
}

void EventQueue::signal() {
  if (signalled_ || fd_ < 0) return;
  signalled_ = true;
  const std::uint64_t one = 1;
  // It cannot fail: the counter never exceeds one.
  [[maybe_unused]] const auto written = ::write(fd_, &one, sizeof one);
}

void EventQueue::connected() {
  const std::lock_guard hold(lock_);
  push(Event{});
}

void EventQueue::progressed(std::uint64_t op, std::uint64_t verified, EventSlot& slot) {
  const std::lock_guard hold(lock_);
  if (slot.batch == batch_) {
    events_[slot.index].b = verified;
    return;
  }
  slot = EventSlot{batch_, events_.size()};
  push(Event{.type = EventType::Progressed, .a = op, .b = verified});
}

void EventQueue::completed(std::uint64_t op) {
  const std::lock_guard hold(lock_);
  push(Event{.type = EventType::Completed, .a = op});
}

void EventQueue::failed(std::uint64_t op, std::uint16_t code, std::uint64_t detail) {
  const std::lock_guard hold(lock_);
  push(Event{.type = EventType::Failed, .code = code, .a = op, .b = detail});
}

void EventQueue::arrived(const Key& key, EventSlot& slot) {
  const std::lock_guard hold(lock_);
  if (slot.batch == batch_) {
    ++events_[slot.index].b;
    return;
  }
  slot = EventSlot{batch_, events_.size()};
  push(Event{.type = EventType::Arrived, .b = 1, .key = key});
}

void EventQueue::expired(std::uint64_t op) {
  const std::lock_guard hold(lock_);
  push(Event{.type = EventType::Expired, .a = op});
}

void EventQueue::lost(std::uint16_t code, std::string text) {
  const std::lock_guard hold(lock_);
  text_ = std::move(text);
  push(Event{.type = EventType::Lost, .code = code});
}

bool EventQueue::take(std::vector<Event>& out) {
  const std::lock_guard hold(lock_);
  if (signalled_) {
    signalled_ = false;
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(fd_, &count, sizeof count);
  }
  if (events_.empty()) return false;
  if (out.empty()) {
    out.swap(events_);
  } else {
    out.insert(out.end(), events_.begin(), events_.end());
    events_.clear();
  }
  ++batch_;
  pending_.store(false, std::memory_order_release);
  urgent_.store(false, std::memory_order_release);
  return true;
}

std::string EventQueue::lost_text() {
  const std::lock_guard hold(lock_);
  return text_;
}

bool EventQueue::wait(std::int64_t timeout_ns) {
  pollfd watched{fd_, POLLIN, 0};
  timespec limit{};
  if (timeout_ns >= 0) {
    limit.tv_sec = static_cast<time_t>(timeout_ns / 1'000'000'000);
    limit.tv_nsec = static_cast<long>(timeout_ns % 1'000'000'000);
  }
  ::ppoll(&watched, 1, timeout_ns < 0 ? nullptr : &limit, nullptr);
  return pending();
}

void EventQueue::interrupt() {
  const std::lock_guard hold(lock_);
  interrupts_.fetch_add(1, std::memory_order_release);
  signal();
}

void EventQueue::watched(bool yes) {
  const std::lock_guard hold(lock_);
  watchers_ += yes ? 1 : -1;
  // What came while somebody looked, and was not taken, is the next one's to find.
  if (watchers_ == 0 && !events_.empty()) signal();
}

}  // namespace genie
