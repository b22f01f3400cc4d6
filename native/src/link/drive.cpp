// How an endpoint is driven: by whoever waits for its events, else by its own thread.
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "genie/endpoint.h"

namespace genie {
namespace {

constexpr std::int64_t kSpin = 50'000;     // how long to look before sleeping
constexpr std::int64_t kLease = 100'000;   // how long a driver may be away
constexpr std::int64_t kNews = 4'000'000;  // how often a driver stops to tell of progress
constexpr std::int64_t kPauses = 1'500;    // of these, how long without giving up the core

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

// -- waiting for events -----------------------------------------------------------------------

bool Endpoint::poll(std::vector<Event>& out, std::int64_t timeout_ns) {
  if (events_.take(out)) return true;
  if (timeout_ns == 0) return false;
  // After take(), which forgets the signal: an interruption in between is seen here, and one that
  // comes later signals again.
  if (interrupted()) return false;
  const std::int64_t begin = now_ns();
  const std::int64_t deadline =
      timeout_ns < 0 || timeout_ns > kLongest ? begin + kLongest : begin + timeout_ns;
  bool taken = false;
  while (!taken && events_.interrupts() == interrupts_seen_) {
    if (spins_ && spin(out, deadline)) return true;
    const std::int64_t left = deadline - now_ns();
    if (left <= 0 || events_.interrupts() != interrupts_seen_) break;
    if (!spins_ || !doze(left)) events_.wait(left);
    taken = events_.take(out);
  }
  (void)interrupted();
  return taken || events_.take(out);
}

// Sleeps until the peer rings or there are events, for the endpoint's thread too: a message then
// wakes one thread, not first that one and then this. False when it cannot.
bool Endpoint::doze(std::int64_t limit_ns) {
  std::array<pollfd, Wire::kMaxDescriptors + 1> watched{};
  watched[0] = {events_.fd(), POLLIN, 0};
  std::size_t count = 1;
  bool idle = false;
  {
    const Entry entry(*this);
    if (ended_ || closing_ || held_ || wire_ == nullptr || !leased_ || dozing_) return false;
    dozing_ = true;
    stirred_ = false;
    idle = wire_->arm(link_);
    count += wire_->watch(&watched[1]);
  }
  int found = 0;
  if (idle) {
    const timespec limit{static_cast<time_t>(limit_ns / 1'000'000'000),
                         static_cast<long>(limit_ns % 1'000'000'000)};
    found = ::ppoll(watched.data(), count, &limit, nullptr);
  }
  {
    const Entry entry(*this);
    dozing_ = false;
    stirred_ = false;
    if (wire_ != nullptr) {
      if (found > 0) wire_->ready(&watched[1], count - 1);
      wire_->disarm();
      turn();
    }
    lease_until_.store(now_ns() + kLease);
  }
  nudge();  // the thread has not watched the wire meanwhile
  return true;
}

bool Endpoint::interrupted() {
  const std::uint64_t now = events_.interrupts();
  return std::exchange(interrupts_seen_, now) != now;
}

bool Endpoint::spin(std::vector<Event>& out, std::int64_t deadline) {
  {
    const Entry entry(*this);
    if (ended_ || wire_ == nullptr) return events_.take(out);
    drivers_.fetch_add(1);
    if (!leased_) {
      // From here on the thread looks now and then whether the drivers are still at it, instead
      // of sleeping until the peer rings: entering and leaving is then free of system calls.
      leased_ = true;
      wire_->disarm();
      nudge();
    }
  }
  events_.watched(true);
  const std::int64_t begun = now_ns();
  std::int64_t worked = begun;
  std::int64_t now = begun;
  bool disturbed = false;  // turns of which a sleeper knows nothing
  const auto done = [&] { return events_.urgent() || (events_.pending() && now - begun >= kNews); };
  while (!done() && events_.interrupts() == interrupts_seen_) {
    bool progress = false;
    if (waiting_.load(std::memory_order_relaxed) == 0 && lock_.try_lock()) {
      progress = turn();
      disturbed = disturbed || (progress && dozing_);
      lock_.unlock();
    }
    now = now_ns();
    if (now >= deadline) break;
    if (progress) {
      worked = now;
      continue;
    }
    if (now - worked > kSpin) break;
    if (now - worked < kPauses) {
      pause_cpu();
    } else {
      ::sched_yield();
    }
  }
  if (disturbed) nudge();
  const bool taken = events_.take(out);
  events_.watched(false);
  lease_until_.store(now + kLease);
  drivers_.fetch_sub(1);
  return taken;
}

// -- the endpoint's thread --------------------------------------------------------------------

void Endpoint::run() {
  std::unique_lock hold(lock_);
  std::int64_t worked = now_ns();
  while (!ended_) {
    const bool progress = turn();
    if (ended_) break;
    // What was posted meanwhile may wait for room, for which the sleeper does not watch.
    stirred_ = dozing_;
    const std::int64_t now = now_ns();
    if (leased_ && !dozing_ && drivers_.load() == 0 && now >= lease_until_.load()) {
      leased_ = false;
    }
    const bool alone = !leased_;
    if (progress) worked = now;
    const bool look = progress || (spins_ && now - worked < kSpin);
    if (!held_ && alone && look) {
      hold.unlock();
      if (progress) {
        while (waiting_.load() > 0) ::sched_yield();  // whoever withdraws a region goes first
      } else if (now - worked < kPauses) {
        pause_cpu();
      } else {
        ::sched_yield();
      }
      hold.lock();
      continue;
    }
    sleep(hold);
  }
  hold.unlock();
}

void Endpoint::sleep(std::unique_lock<std::mutex>& hold) {
  std::array<pollfd, Wire::kMaxDescriptors + 1> watched{};
  watched[0] = {wake_fd_, POLLIN, 0};
  std::size_t count = 1;
  asleep_.store(true);
  const bool halted = held_;
  bool idle = halted || !posted_.load();
  if (closing_ && !halted) idle = false;
  if (wire_ != nullptr && !halted) {
    if (!leased_ || stirred_) {
      idle = wire_->arm(link_) && idle;
      // Else the drivers look: a descriptor that is waited on would cost each of its wake-ups.
      count += wire_->watch(&watched[1]);
    }
  }
  if (idle) {
    std::int64_t until = kLongest;
    const std::int64_t now = now_ns();
    if (alarm_ != 0) until = std::min(until, alarm_ - now);
    if (wire_ != nullptr && !halted) until = std::min(until, next_beat() - now);
    if (leased_ && !dozing_) until = std::min(until, kLease);
    until = std::max<std::int64_t>(until, 0);
    const timespec limit{static_cast<time_t>(until / 1'000'000'000),
                         static_cast<long>(until % 1'000'000'000)};
    hold.unlock();
    const int found = ::ppoll(watched.data(), count, &limit, nullptr);
    hold.lock();
    if (found > 0 && wire_ != nullptr && count > 1) wire_->ready(&watched[1], count - 1);
  }
  asleep_.store(false);
  if (wire_ != nullptr && !dozing_) wire_->disarm();
  if (watched[0].revents != 0) {
    std::uint64_t taken = 0;
    [[maybe_unused]] const auto got = ::read(wake_fd_, &taken, sizeof taken);
  }
}

}  // namespace genie
