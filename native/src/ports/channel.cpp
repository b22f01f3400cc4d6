#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "genie/poller.h"

namespace genie::datagram {

namespace {

constexpr Nanos kFarewell = 50 * kMilli;  // what join() gives the last words
constexpr std::int64_t kLongest = 3600ll * 1'000'000'000;
constexpr std::uint64_t kInline = 16 << 10;  // posts up to this size go in the caller's thread

}  // namespace

Channel::Channel(Poller& poller, std::unique_ptr<Session> session, const Flow& flow)
    : poller_(poller), session_(std::move(session)), flow_(flow) {}

Channel::~Channel() {
  // After fork() the port belongs to the parent.
  if (::getpid() != poller_.owner_pid_) return;
  close();
  join();
}

void Channel::join() {
  const Nanos limit = clock_now() + kFarewell;
  for (;;) {
    {
      const Poller::Entry entry(poller_);
      if (!listed_) return;
      held_ = false;
      poller_.serve_now(*this);
      if (session_->silent() || clock_now() >= limit) {
        poller_.remove(*this);
        listed_ = false;
        events_.close();
        return;
      }
    }
    ::usleep(200);
  }
}

void Channel::alarm(std::int64_t delay_ns) {
  const Nanos at =
      clock_now() + static_cast<Nanos>(std::clamp<std::int64_t>(delay_ns, 0, kLongest));
  const Poller::Entry entry(poller_);
  if (alarm_ != 0 && alarm_ <= at) return;
  alarm_ = at;
  poller_.kick();
}

void Channel::hold(bool yes) {
  const Poller::Entry entry(poller_);
  held_ = yes;
  poller_.kick();
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> Channel::unfinished() {
  const Poller::Entry entry(poller_);
  return session_->unfinished();
}

bool Channel::finished(std::uint64_t message) {
  const Poller::Entry entry(poller_);
  return session_->finished(message);
}

bool Channel::interrupted() {
  const std::uint64_t now = events_.interrupts();
  return std::exchange(interrupts_seen_, now) != now;
}

bool Channel::add(const Region& region) {
  const Poller::Entry entry(poller_);
  return session_->add(region);
}

bool Channel::withdraw(const Key& key) {
  const Poller::Entry entry(poller_);
  arrivals_.erase(key);
  const bool known = session_->withdraw(key);
  poller_.kick();
  return known;
}

void Channel::fence(std::uint64_t epoch) {
  const Poller::Entry entry(poller_);
  session_->fence(epoch);
  poller_.kick();
}

Code Channel::post(const Order& order) {
  const Poller::Entry entry(poller_);
  const Code code = session_->post(order);
  if (code != Code::Ok || held_) return code;
  if (order.dst.length <= kInline) {
    poller_.serve_now(*this);
    poller_.kick_at(poller_.next_deadline(clock_now()));
  } else if (poller_.drivers_.load() == 0) {
    poller_.rouse();
  }
  return code;
}

bool Channel::cancel(std::uint64_t op) {
  const Poller::Entry entry(poller_);
  const bool known = session_->cancel(op);
  poller_.kick();
  return known;
}

void Channel::close() {
  const Poller::Entry entry(poller_);
  session_->close(clock_now());
  poller_.kick();
}

SessionCounters Channel::counters() {
  const Poller::Entry entry(poller_);
  return session_->counters();
}

bool Channel::poll(std::vector<Event>& out, std::int64_t timeout_ns) {
  if (!events_.take(out)) {
    if (timeout_ns == 0 || interrupted()) return false;
    if (!poller_.drive(*this, out, timeout_ns)) return false;
  }
  // What the session has kept back because nobody had taken these yet.
  poller_.kick();
  return true;
}

}  // namespace genie::datagram
