// What a poller does with its port and sessions in one turn. Who takes the turns, and when nobody
// does, stands in poller_thread.cpp.
#include "genie/poller.h"

#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>

namespace genie::datagram {

namespace {

constexpr std::size_t kShare = 64;  // datagrams a session may send before the next one's turn
constexpr Nanos kCarrierCheck = 100 * kMilli;
constexpr Nanos kCarrierGrace = 5 * kSecond;

}  // namespace

Nanos clock_now() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + static_cast<Nanos>(t.tv_nsec);
}

// -- set-up ---------------------------------------------------------------------------------

Poller::Poller(std::unique_ptr<Port> port)
    : traits_(port->traits()),
      port_(std::move(port)),
      wake_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      timer_fd_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
      owner_pid_(::getpid()) {}

std::unique_ptr<Poller> Poller::start(std::unique_ptr<Port> port, std::string& error) {
  std::unique_ptr<Poller> poller(new Poller(std::move(port)));
  if (poller->wake_fd_ < 0 || poller->timer_fd_ < 0) {
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
  stop();
}

void Poller::stop() {
  stop_ = true;
  if (thread_.joinable()) {
    const std::uint64_t one = 1;
    (void)!::write(wake_fd_, &one, sizeof one);
    thread_.join();
  }
  const Entry entry(*this);
  for (Channel* channel : channels_) {
    channel->session_->abort(Code::Closed);
    if (channel->session_->has_events()) tell(*channel);
  }
  port_.reset();
  for (int* fd : {&wake_fd_, &timer_fd_}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
}

bool Poller::up() {
  const Entry entry(*this);
  return port_ != nullptr && port_->up();
}

PortCounters Poller::counters() {
  const Entry entry(*this);
  return port_ == nullptr ? PortCounters{} : port_->counters();
}

std::unique_ptr<Channel> Poller::open(SessionOptions options, const Flow& flow, Code& why) {
  const PortTraits& traits = traits_;
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
  why = Code::PortDown;
  if (port_ == nullptr) return nullptr;
  why = Code::BadOption;
  if (!by_connection_.emplace(options.local_connection, channel.get()).second) {
    return nullptr;
  }
  channel->listed_ = true;
  channels_.push_back(channel.get());
  kick();
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
    if (found == by_connection_.end() || found->second->held_) continue;
    found->second->session_->on_datagram({batch[i].data, batch[i].size}, now);
  }
  return true;
}

bool Poller::serve(Channel& channel) {
  if (channel.held_ || port_ == nullptr) return false;
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
  if (!channel.events_.pending()) tell(channel);
}

void Poller::tell(Channel& channel) {
  events_.clear();
  channel.session_->take_events(events_);
  for (const Event& event : events_) {
    switch (event.type) {
      case EventType::Completed:
        channel.events_.completed(event.a);
        break;
      case EventType::Failed:
        // Lost says it for all that the session's end has failed.
        if (channel.session_->ended() && event.code == static_cast<int>(channel.session_->why())) {
          break;
        }
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

void Poller::serve_now(Channel& channel) {
  serve(channel);
  if (port_ != nullptr) port_->flush();
}

bool Poller::turn(Nanos now) {
  if (port_ == nullptr) return false;
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
    if (channel->alarm_ != 0 && now >= channel->alarm_) {
      channel->alarm_ = 0;
      channel->events_.expired(0);
    }
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
    if (!channel->held_) at = std::min(at, channel->session_->next_deadline(now));
    if (channel->alarm_ != 0) at = std::min(at, channel->alarm_);
  }
  return at;
}

}  // namespace genie::datagram
