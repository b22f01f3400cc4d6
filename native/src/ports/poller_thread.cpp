// Who takes a poller's turns: its thread, or whoever waits for events of a channel.
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>

#include "genie/poller.h"

namespace genie::datagram {

namespace {

constexpr Nanos kSpin = 50 * kMicro;  // how long to look before giving up the core
constexpr Nanos kYield = 200 * kMicro;
// Naps of a port that cannot wake us: an eighth of how long nothing came, within these bounds.
constexpr Nanos kShortNap = 50 * kMicro;
constexpr Nanos kLongNap = 10 * kMilli;
// How long after somebody drove the port its thread leaves it to whoever comes back.
constexpr Nanos kLinger = 500 * kMicro;
constexpr Nanos kHour = 3600 * kSecond;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void Poller::kick() {
  if (!asleep_.load() || !asleep_.exchange(false)) return;
  const std::uint64_t one = 1;
  (void)!::write(wake_fd_, &one, sizeof one);
}

// Has the thread take over from whoever drove the port.
void Poller::rouse() {
  driven_until_ = 0;
  if (!asleep_.exchange(false) && !lingering_) return;
  const std::uint64_t one = 1;
  (void)!::write(wake_fd_, &one, sizeof one);
}

// Has the thread, if it sleeps, wake up for what is due then. Unlike kick() it does not set it to
// work now, beside whoever has just posted and whoever receives that.
void Poller::kick_at(Nanos due) {
  if (!asleep_.load() || due == kNever) return;
  if (due <= clock_now()) return kick();
  itimerspec at{};
  at.it_value = {static_cast<time_t>(due / kSecond), static_cast<long>(due % kSecond)};
  if (::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &at, nullptr) != 0) kick();
}

// Waits for either descriptor, and for the port with `port`, until the time given.
void Poller::wait(int own, int timer, Nanos until, bool port) {
  // Negative ones are passed over.
  pollfd watched[3] = {
      {own, POLLIN, 0}, {timer, POLLIN, 0}, {port ? traits_.wake_fd : -1, POLLIN, 0}};
  const Nanos now = clock_now();
  if (until <= now) return;
  const Nanos wait = std::min(until - now, kHour);
  const timespec limit{static_cast<time_t>(wait / kSecond), static_cast<long>(wait % kSecond)};
  ::ppoll(watched, 3, &limit, nullptr);
  // An interface that went down leaves an error, which would end every later wait at once.
  int pending = 0;
  socklen_t size = sizeof pending;
  if (watched[2].revents & POLLERR) {
    ::getsockopt(watched[2].fd, SOL_SOCKET, SO_ERROR, &pending, &size);
  }
}

// Waits, unlocked, for kick() or until then; with `port`, for something to receive too.
void Poller::sleep(Nanos until, bool port) {
  wait(wake_fd_, timer_fd_, std::min(until, clock_now() + kSecond), port);
  asleep_ = false;
  std::uint64_t count;
  (void)!::read(wake_fd_, &count, sizeof count);
  (void)!::read(timer_fd_, &count, sizeof count);
}

void Poller::run() {
  port_->enter();
  Nanos idle_since = clock_now();
  while (!stop_.load(std::memory_order_relaxed)) {
    const Nanos now = clock_now();
    if (drivers_.load() > 0 || now < driven_until_.load()) {
      // Somebody who waits for events does the work, or has and will be back presently.
      lingering_ = true;
      sleep(now + kLinger, false);
      lingering_ = false;
      idle_since = clock_now();
      continue;
    }
    if (waiting_.load(std::memory_order_relaxed) > 0) ::sched_yield();
    Nanos deadline;
    {
      const std::lock_guard hold(lock_);
      if (turn(now)) {
        idle_since = now;
        continue;
      }
      deadline = next_deadline(now);
      if (now - idle_since > kYield && deadline > now) asleep_ = true;
    }
    const Nanos idle = now - idle_since;
    if (idle <= kSpin) {
      pause_cpu();
    } else if (!asleep_) {
      ::sched_yield();
    } else {
      const Nanos nap = traits_.wake_fd >= 0 ? kSecond : std::clamp(idle / 8, kShortNap, kLongNap);
      // Who dozes looks after the port, and the thread after everybody's timers.
      sleep(std::min(deadline, now + nap), !dozing_);
    }
  }
}

bool Poller::drive(Channel& channel, std::vector<Event>& out, std::int64_t timeout_ns) {
  const Nanos start = clock_now();
  const Nanos limit = start + (timeout_ns < 0 ? kHour : static_cast<Nanos>(timeout_ns));
  port_->enter();
  const auto over = [&] {
    return clock_now() >= limit || channel.events_.interrupts() != channel.interrupts_seen_;
  };
  bool found = false;
  bool dozed = false;
  while (!found && !over()) {
    found = spin(channel, out, limit);
    if (found || over()) break;
    // Nothing for a while. Where the port can wake us it does so itself: a datagram then wakes one
    // thread, not first the poller's and then this.
    const bool port = traits_.wake_fd >= 0 && !dozing_.exchange(true);
    if (!channel.events_.pending()) wait(channel.events_.fd(), -1, limit, port);
    if (port) dozing_ = false;
    dozed |= port;
    found = !port && channel.events_.take(out);
  }
  if (dozed) kick();  // the thread may sleep without watching the port
  (void)channel.interrupted();
  return found || channel.events_.take(out);
}

// Takes turns until there are events or nothing has come for a while.
bool Poller::spin(Channel& channel, std::vector<Event>& out, Nanos limit) {
  drivers_.fetch_add(1);
  channel.events_.watched(true);
  bool found = false;
  Nanos idle_since = clock_now();
  for (;;) {
    if (waiting_.load(std::memory_order_relaxed) > 0) ::sched_yield();
    const Nanos now = clock_now();
    {
      const std::lock_guard hold(lock_);
      if (turn(now)) idle_since = now;
    }
    if (channel.events_.take(out)) {
      found = true;
      break;
    }
    if (now >= limit || channel.events_.interrupts() != channel.interrupts_seen_) break;
    if (now - idle_since > kSpin) {
      if (now - idle_since > kYield) break;
      ::sched_yield();
    } else {
      pause_cpu();
    }
  }
  driven_until_ = found ? clock_now() + kLinger : 0;
  drivers_.fetch_sub(1);
  if (!found) rouse();
  channel.events_.watched(false);
  return found;
}

}  // namespace genie::datagram
