#include "genie/poller.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>

namespace genie::datagram {

namespace {

constexpr Nanos kSpin = 50 * kMicro;  // how long to look before giving up the core
constexpr Nanos kYield = 200 * kMicro;
// Naps of a port that cannot wake us: an eighth of how long nothing came, within these bounds.
constexpr Nanos kShortNap = 50 * kMicro;
constexpr Nanos kLongNap = 10 * kMilli;
// How long after somebody drove the port its thread leaves it to whoever comes back.
constexpr Nanos kLinger = 500 * kMicro;
constexpr std::uint64_t kInline = 16 << 10;  // posts up to this size go in the caller's thread
constexpr std::size_t kShare = 64;    // datagrams a session may send before the next one's turn
constexpr Nanos kCarrierCheck = 100 * kMilli;
constexpr Nanos kCarrierGrace = 5 * kSecond;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Nanos clock_now() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + static_cast<Nanos>(t.tv_nsec);
}

// -- channels -------------------------------------------------------------------------------

Channel::Channel(Poller& poller, std::unique_ptr<Session> session, const Flow& flow)
    : poller_(poller), session_(std::move(session)), flow_(flow) {}

Channel::~Channel() {
  if (::getpid() != poller_.owner_pid_ || !listed_) return;
  close();
  const Poller::Entry entry(poller_);
  // What says goodbye has to leave before the session is gone; the rest of it may get lost.
  poller_.serve(*this);
  poller_.port_->flush();
  poller_.remove(*this);
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
  if (code != Code::Ok) return code;
  if (order.dst.length <= kInline) {
    poller_.serve(*this);
    poller_.port_->flush();
    poller_.kick();
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
  if (!events_.take(out) && !poller_.drive(*this, out, timeout_ns)) return false;
  // What the session has kept back because nobody had taken these yet.
  poller_.kick();
  return true;
}

// -- set-up ---------------------------------------------------------------------------------

Poller::Poller(std::unique_ptr<Port> port)
    : port_(std::move(port)),
      wake_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      owner_pid_(::getpid()) {}

std::unique_ptr<Poller> Poller::start(std::unique_ptr<Port> port, std::string& error) {
  std::unique_ptr<Poller> poller(new Poller(std::move(port)));
  if (poller->wake_fd_ < 0) {
    error = "no descriptors are left";
    return nullptr;
  }
  try {
    poller->thread_ = std::thread([p = poller.get()] { p->run(); });
  } catch (const std::system_error& problem) {
    error = problem.what();
    return nullptr;
  }
  return poller;
}

Poller::~Poller() {
  if (::getpid() != owner_pid_) {
    // After fork() the thread and the device belong to the parent.
    if (thread_.joinable()) thread_.detach();
    (void)port_.release();
    return;
  }
  stop_ = true;
  if (thread_.joinable()) {
    const std::uint64_t one = 1;
    (void)!::write(wake_fd_, &one, sizeof one);
    thread_.join();
  }
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

PortCounters Poller::counters() {
  const Entry entry(*this);
  return port_->counters();
}

std::unique_ptr<Channel> Poller::open(SessionOptions options, const Flow& flow, Code& why) {
  const PortTraits& traits = port_->traits();
  why = Code::PortUnusable;
  // Both sides cut messages into pieces of the agreed size: it cannot be made smaller here.
  if (options.max_datagram > traits.max_datagram) return nullptr;
  options.window = std::min(options.window, credit_of(traits, options.max_datagram));
  why = Code::BadOption;
  auto session = Session::create(options, clock_now());
  if (session == nullptr) return nullptr;
  std::unique_ptr<Channel> channel(new Channel(*this, std::move(session), flow));
  why = Code::NoMemory;
  if (!channel->events_.ok()) return nullptr;
  const Entry entry(*this);
  why = Code::BadOption;
  if (!by_connection_.emplace(options.local_connection, channel.get()).second) {
    return nullptr;
  }
  channel->listed_ = true;
  channels_.push_back(channel.get());
  why = Code::Ok;
  return channel;
}

void Poller::remove(Channel& channel) {
  by_connection_.erase(channel.session_->options().local_connection);
  std::erase(channels_, &channel);
}

// -- one turn -------------------------------------------------------------------------------

bool Poller::receive() {
  Received batch[Port::kBurst];
  const std::size_t count = port_->receive(batch);
  if (count == 0) return false;
  const Nanos now = clock_now();
  for (std::size_t i = 0; i < count; ++i) {
    if (batch[i].size < kHeaderBytes) continue;
    const auto found = by_connection_.find(load<std::uint32_t>(batch[i].data + 4));
    if (found == by_connection_.end()) continue;
    found->second->session_->on_datagram({batch[i].data, batch[i].size}, now);
  }
  return true;
}

bool Poller::serve(Channel& channel) {
  Nanos now = clock_now();
  Session& session = *channel.session_;
  if (session.has_events()) report(channel);
  if (session.next_deadline(now) > now) return false;
  session.on_tick(now);
  bool busy = false;
  for (std::size_t i = 0; i < kShare; ++i) {
    SendSlot slot;
    if (!port_->acquire(slot)) {
      // No room: hand over what there is, and come back when the device has taken some.
      port_->flush();
      break;
    }
    const std::size_t size = session.transmit(now, slot.data);
    if (size == 0) {
      port_->abandon(slot);
      break;
    }
    port_->commit(slot, size, channel.flow_);
    busy = true;
    // Handing a burst to the device takes its time, and round trips are counted from here.
    if (i % Port::kBurst == Port::kBurst - 1) now = clock_now();
  }
  if (session.has_events()) report(channel);
  return busy;
}

void Poller::report(Channel& channel) {
  // Not before the last ones were taken: the session joins what repeats, the queue would grow.
  if (channel.events_.pending()) return;
  events_.clear();
  channel.session_->take_events(events_);
  for (const Event& event : events_) {
    switch (event.type) {
      case EventType::Completed:
        channel.events_.completed(event.a);
        break;
      case EventType::Failed:
        channel.events_.failed(event.a, event.code, event.b);
        break;
      case EventType::Progressed: {
        EventSlot apart;  // the session joins those of one turn
        channel.events_.progressed(event.a, event.b, apart);
        break;
      }
      case EventType::Arrived:
        for (std::uint64_t i = 0; i < event.b; ++i) {
          channel.events_.arrived(event.key, channel.arrivals_[event.key]);
        }
        break;
      case EventType::Lost:
        channel.events_.lost(event.code, describe(static_cast<Code>(event.code)));
        break;
      default:
        break;
    }
  }
}

bool Poller::turn(Nanos now) {
  bool busy = receive();
  if (now - carrier_checked_ > kCarrierCheck) {
    carrier_checked_ = now;
    if (port_->up()) {
      carrier_lost_ = 0;
    } else if (carrier_lost_ == 0) {
      carrier_lost_ = now;
    } else if (now - carrier_lost_ > kCarrierGrace) {
      for (Channel* channel : channels_) channel->session_->abort(Code::PortDown);
    }
  }
  for (Channel* channel : channels_) {
    if (!channel->connected_ && channel->session_->heard()) {
      channel->connected_ = true;
      channel->events_.connected();
    }
  }
  for (std::size_t i = 0; i < channels_.size(); ++i) {
    busy |= serve(*channels_[(first_ + i) % channels_.size()]);
  }
  if (!channels_.empty()) first_ = (first_ + 1) % channels_.size();
  port_->flush();
  return busy;
}

Nanos Poller::next_deadline(Nanos now) {
  Nanos at = kNever;
  for (const Channel* channel : channels_) {
    at = std::min(at, channel->session_->next_deadline(now));
  }
  return at;
}

// -- threads --------------------------------------------------------------------------------

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

// Waits, unlocked, for kick() or until then; with `port`, for something to receive too.
void Poller::sleep(Nanos until, bool port) {
  pollfd watched[2] = {{wake_fd_, POLLIN, 0}, {port_->traits().wake_fd, POLLIN, 0}};
  const nfds_t count = port && watched[1].fd >= 0 ? 2 : 1;
  const Nanos now = clock_now();
  if (until > now) {
    const Nanos wait = std::min(until - now, kSecond);
    const timespec limit{static_cast<time_t>(wait / kSecond), static_cast<long>(wait % kSecond)};
    ::ppoll(watched, count, &limit, nullptr);
  }
  asleep_ = false;
  std::uint64_t count_of_kicks;
  (void)!::read(wake_fd_, &count_of_kicks, sizeof count_of_kicks);
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
      const Nanos nap = port_->traits().wake_fd >= 0
                            ? kSecond
                            : std::clamp(idle / 8, kShortNap, kLongNap);
      sleep(std::min(deadline, now + nap), true);
    }
  }
}

bool Poller::drive(Channel& channel, std::vector<Event>& out, std::int64_t timeout_ns) {
  const Nanos start = clock_now();
  const Nanos limit = timeout_ns < 0 ? kNever : start + static_cast<Nanos>(timeout_ns);
  drivers_.fetch_add(1);
  channel.events_.watched(true);
  port_->enter();
  bool found = false;
  Nanos idle_since = start;
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
    if (now >= limit) break;
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
  if (found) return true;
  const Nanos now = clock_now();
  const std::int64_t rest =
      timeout_ns < 0 ? -1 : static_cast<std::int64_t>(limit - std::min(limit, now));
  // Nothing for a while: the thread sleeps as the port allows, and the queue's descriptor wakes us.
  return (channel.events_.wait(rest) || channel.events_.pending()) && channel.events_.take(out);
}

}  // namespace genie::datagram
