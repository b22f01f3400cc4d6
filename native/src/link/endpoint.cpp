#include "genie/endpoint.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <system_error>
#include <utility>

namespace genie {
namespace {

constexpr std::int64_t kFarewell = 250'000'000;  // what close() gives the last acknowledgements
constexpr std::uint64_t kInline = 16u << 10;     // posts up to this size go in the caller's thread

}  // namespace

std::int64_t now_ns() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

Endpoint::Endpoint(const Terms& own)
    : link_(events_, counters_, own),
      wake_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      owner_pid_(::getpid()) {}

// After fork() the thread exists in the parent only, and so do its duties.
bool Endpoint::inherited() const { return ::getpid() != owner_pid_; }

Endpoint::~Endpoint() {
  if (inherited()) {
    if (thread_.joinable()) thread_.detach();
    if (courier_ != nullptr) courier_->abandon();
    (void)wire_.release();
    return;
  }
  close();
  join();
}

bool Endpoint::start(std::string& error) {
  if (wake_fd_ < 0 || !events_.ok()) {
    error = "no descriptors are left";
    return false;
  }
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& failure) {
    error = failure.what();
    return false;
  }
  return true;
}

bool Endpoint::attach(std::unique_ptr<Wire> wire, const Terms& peer) {
  const Entry entry(*this);
  if (wire_ != nullptr || closing_ || ended_) return false;
  wire_ = std::move(wire);
  spins_ = wire_->spins();
  heard_ = spoke_ = now_ns();
  link_.connect(peer);
  kick();
  return true;
}

void Endpoint::add(const Region& region) {
  const Entry entry(*this);
  if (!ended_) link_.add(region);
}

bool Endpoint::withdraw(const Key& key) {
  const Entry entry(*this);
  const bool known = link_.withdraw(key);
  kick();
  return known;
}

void Endpoint::fence(std::uint64_t epoch) {
  const Entry entry(*this);
  link_.fence(epoch);
  kick();
}

void Endpoint::post(const Order& order) {
  {
    const std::lock_guard hold(inbox_lock_);
    inbox_.push_back(order);
  }
  posted_.store(true);  // before asleep_ is read: one side sees the other
  if (order.dst.length <= kInline && !held_ && lock_.try_lock()) {
    if (!ended_ && !closing_ && !held_ && wire_ != nullptr) {
      take_orders();
      const bool rest = send_now();
      lock_.unlock();
      if (rest) kick();
      return;
    }
    lock_.unlock();
  }
  kick();
}

// Sends, under the lock, what can go at once. True when something is left: that, and how a failure
// ends, is the driver's part.
bool Endpoint::send_now() {
  Turn turn;
  wire_->send(link_, turn, Wanted::All);
  if (turn.sent) spoke_ = now_ns();
  return turn.more || turn.ended() || !wire_->flushed() || link_.has_outgoing();
}

bool Endpoint::stand(const Order& order, int trigger, std::string& error) {
  auto descriptor = OwnedFd::duplicate(trigger);
  if (descriptor == nullptr) {
    error = "no descriptors are left";
    return false;
  }
  const Entry entry(*this);
  if (ended_ || closing_) {
    error = "the connection has ended";
    return false;
  }
  if (courier_ == nullptr) {
    auto courier = std::make_unique<Courier>(
        [this](std::uint64_t op, std::uint64_t times, bool last) { triggered(op, times, last); });
    if (!courier->start(error)) return false;
    courier_ = std::move(courier);
  }
  link_.stand(order);
  courier_->add(order.op, std::move(descriptor));
  return true;
}

void Endpoint::conclude(std::uint64_t op) {
  const Entry entry(*this);
  if (courier_ != nullptr) courier_->conclude(op);
}

void Endpoint::triggered(std::uint64_t op, std::uint64_t times, bool last) {
  bool rest = false;
  {
    const Entry entry(*this);
    link_.at(now_ns());
    if (ended_ || !link_.trigger(op, times)) return;
    if (last) link_.conclude(op);
    rest = closing_ || held_ || wire_ == nullptr || send_now();
  }
  if (rest) kick();
}

Carried Endpoint::carried(std::uint64_t op) {
  const Entry entry(*this);
  // One that failed is no longer known there, but its eventfd is still watched.
  if (courier_ != nullptr && !link_.stands(op)) courier_->remove(op);
  return link_.carried(op);
}

std::uint64_t Endpoint::rings(const Key& key) {
  const Entry entry(*this);
  return link_.rings(key);
}

bool Endpoint::hang(const Key& key, int eventfd) {
  auto descriptor = OwnedFd::duplicate(eventfd);
  if (descriptor == nullptr) return false;
  auto bell = std::make_shared<Bell>(std::move(descriptor));
  const Entry entry(*this);
  return !ended_ && link_.hang(key, std::move(bell));
}

bool Endpoint::cancel(std::uint64_t op) {
  const Entry entry(*this);
  take_orders();
  if (courier_ != nullptr) courier_->remove(op);
  if (!link_.cancel(op)) return false;
  if (wire_ != nullptr) wire_->forget(op);
  kick();
  return true;
}

void Endpoint::alarm(std::int64_t delay_ns) {
  const std::int64_t at = now_ns() + std::clamp<std::int64_t>(delay_ns, 0, kLongest);
  const Entry entry(*this);
  if (alarm_ != 0 && alarm_ <= at) return;
  alarm_ = at;
  kick();
}

void Endpoint::close() {
  if (inherited()) return;
  closing_ = true;
  nudge();
}

void Endpoint::join() {
  if (inherited()) return;
  const std::lock_guard hold(join_lock_);
  if (thread_.joinable()) thread_.join();
  if (courier_ != nullptr) courier_->stop();
  const Entry entry(*this);
  courier_.reset();
  wire_.reset();
  if (wake_fd_ >= 0) ::close(wake_fd_);
  wake_fd_ = -1;
  events_.close();
}

void Endpoint::hold(bool yes) {
  {
    const Entry entry(*this);  // nobody is in the middle of a turn when this returns
    held_ = yes;
  }
  if (!yes) nudge();
}

Counters Endpoint::counters() {
  const Entry entry(*this);
  return counters_;
}

void Endpoint::kick() {
  if (asleep_.load()) nudge();
}

void Endpoint::nudge() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
}

// -- one turn, under the lock -----------------------------------------------------------------

bool Endpoint::turn() {
  if (ended_) return false;
  const std::int64_t now = now_ns();
  if (alarm_ != 0 && now >= alarm_) ring(now);
  if (held_) return false;
  link_.at(now);
  take_orders();
  if (wire_ == nullptr) {
    if (closing_) end(611, "the manager was closed");
    return false;
  }
  Turn turn;
  wire_->receive(link_, turn);
  if (turn.received) heard_ = now;
  if (!turn.ended() && !link_.peer_closed()) {
    if (closing_) {
      farewell();
      return true;
    }
    if (!keep_alive(now)) return true;
    wire_->send(link_, turn, Wanted::All);
    if (turn.sent) spoke_ = now;
    if (turn.ended()) salvage(turn);
  }
  if (link_.peer_closed()) {
    end(610, "the peer closed the connection");
  } else if (turn.ended()) {
    end(turn.code, std::move(turn.text));
  }
  return turn.received || turn.sent || turn.more;
}

void Endpoint::take_orders() {
  if (!posted_.exchange(false)) return;
  {
    const std::lock_guard hold(inbox_lock_);
    orders_.swap(inbox_);
  }
  if (!ended_) {
    for (const Order& order : orders_) link_.post(order);
  }
  orders_.clear();
}

void Endpoint::ring(std::int64_t now) {
  if (now < alarm_) return;
  alarm_ = 0;
  events_.expired(0);
}

std::int64_t Endpoint::next_beat() const {
  const std::int64_t patience = std::min(link_.own().stall_ns, link_.peer().stall_ns);
  return std::min(spoke_ + patience / 4, heard_ + link_.own().stall_ns);
}

// Has the peer hear of us in time. False when it has been silent for too long.
bool Endpoint::keep_alive(std::int64_t now) {
  if (now < next_beat()) return true;
  if (now - heard_ >= link_.own().stall_ns) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "the peer has not sent a byte for %g s",
                  static_cast<double>(link_.own().stall_ns) / 1e9);
    end(615, text.data());
    return false;
  }
  spoke_ = now;  // also when the frame must wait: one at a time is enough
  link_.keepalive();
  return true;
}

// -- the end ----------------------------------------------------------------------------------

// Sends the last acknowledgements and Bye, without waiting long for a slow peer.
void Endpoint::farewell() {
  link_.bye();
  const std::int64_t deadline = now_ns() + kFarewell;
  Turn turn;
  wire_->send(link_, turn, Wanted::Control);
  while (!turn.ended() && !wire_->flushed() && now_ns() < deadline) {
    std::array<pollfd, Wire::kMaxDescriptors> watched{};
    const std::size_t count = wire_->watch(watched.data());
    const timespec limit{0, 1'000'000};
    ::ppoll(watched.data(), count, &limit, nullptr);
    wire_->send(link_, turn, Wanted::Control);
  }
  end(611, "the manager was closed");
}

// Sending failed: reads what the peer had said before it went, then ends.
void Endpoint::salvage(Turn& failed) {
  Turn turn;
  do {
    turn = Turn{};
    wire_->receive(link_, turn);
  } while (!turn.ended() && !link_.peer_closed() && (turn.received || turn.more));
  (void)failed;  // the first failure is the one to report
}

// Releases everything but the descriptors, and says so; once.
void Endpoint::end(std::uint16_t code, std::string text) {
  if (ended_) return;
  ended_ = true;
  spins_ = false;
  if (wire_ != nullptr) wire_->shut();
  link_.clear();
  {
    const std::lock_guard hold(inbox_lock_);
    inbox_.clear();
  }
  events_.lost(code, std::move(text));
  nudge();
}

}  // namespace genie
