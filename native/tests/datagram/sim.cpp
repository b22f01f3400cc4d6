#include "sim.h"

#include <algorithm>
#include <cstring>

namespace genie::datagram::sim {

std::pair<SessionOptions, SessionOptions> matching(Protection protection, std::size_t datagram,
                                                   std::uint64_t seed) {
  Random random(seed);
  SessionOptions a, b;
  a.protection = b.protection = protection;
  a.max_datagram = b.max_datagram = datagram;
  for (auto& byte : a.send_key) byte = static_cast<std::byte>(random.next());
  for (auto& byte : a.receive_key) byte = static_cast<std::byte>(random.next());
  b.send_key = a.receive_key;
  b.receive_key = a.send_key;
  a.local_connection = b.peer_connection = static_cast<std::uint32_t>(random.next());
  b.local_connection = a.peer_connection = static_cast<std::uint32_t>(random.next());
  a.epoch = b.epoch = static_cast<std::uint32_t>(random.below(1000));
  a.stall_timeout = b.stall_timeout = 2 * kSecond;
  return {a, b};
}

Sim::Sim(const SessionOptions& a, const SessionOptions& b, const LinkOptions& link,
         std::uint64_t seed)
    : link_(link), frame_(kMaxDatagram) {
  sides_[0].session = Session::create(a, now_);
  sides_[1].session = Session::create(b, now_);
  set_faults(link.faults, seed);
}

void Sim::set_faults(const FaultRates& rates, std::uint64_t seed) {
  faults_.clear();
  faults_.emplace_back(rates, 2 * seed);
  faults_.emplace_back(rates, 2 * seed + 1);
}

std::uint64_t Sim::post(int index, const std::byte* source, const Destination& dst, int priority) {
  Side& side = sides_[index];
  Order order;
  order.op = side.outcomes.size();
  order.source = source;
  order.dst = dst;
  order.priority = priority;
  side.outcomes.emplace_back();
  const Code code = side.session->post(order);
  if (code != Code::Ok) side.outcomes.back() = {true, code, 0, now_};
  return order.op;
}

void Sim::at(Nanos time, std::function<void()> action) {
  Arrival arrival;
  arrival.time = time;
  arrival.order = order_++;
  arrival.to = -1;
  arrival.action = std::move(action);
  queue_.push(std::move(arrival));
}

void Sim::carry(int from, std::size_t size) {
  Side& side = sides_[from];
  ++side.sent;
  side.line_free = std::max(side.line_free, now_);
  const Nanos backlog = side.line_free - now_;
  const double rate = static_cast<double>(link_.bytes_per_second);
  if (static_cast<double>(backlog) * 1e-9 * rate > static_cast<double>(link_.queue_bytes)) return;
  side.line_free += static_cast<Nanos>(static_cast<double>(size) * 1e9 / rate) + 1;
  if (now_ < dark_until_) return;
  Faults& faults = faults_[static_cast<std::size_t>(from)];
  const Faults::Verdict verdict = faults.decide();
  for (unsigned i = 0; i < verdict.copies; ++i) {
    Arrival arrival;
    arrival.bytes.assign(frame_.data(), frame_.data() + size);
    arrival.bytes.resize(faults.damage(arrival.bytes));
    arrival.time = side.line_free + link_.latency + verdict.late[i];
    const Nanos grid = sides_[1 - from].polls_every;
    if (grid != 0) arrival.time = (arrival.time / grid + 1) * grid;
    arrival.order = order_++;
    arrival.to = 1 - from;
    queue_.push(std::move(arrival));
  }
}

void Sim::pump(int index) {
  Side& side = sides_[index];
  if (side.dead) return;
  side.session->on_tick(now_);
  while (const std::size_t size = side.session->transmit(now_, frame_.data())) carry(index, size);
  collect(index);
}

void Sim::collect(int index) {
  Side& side = sides_[index];
  events_.clear();
  side.session->take_events(events_);
  for (const Event& event : events_) {
    switch (event.type) {
      case EventType::Completed:
      case EventType::Failed: {
        Outcome& outcome = side.outcomes.at(event.a);
        // Said twice, or after a cancellation: no test may miss it.
        if (outcome.ended) std::abort();
        outcome = {true, static_cast<Code>(event.code), outcome.progress, now_};
        break;
      }
      case EventType::Progressed: {
        Outcome& outcome = side.outcomes.at(event.a);
        if (outcome.ended || event.b <= outcome.progress) std::abort();
        outcome.progress = event.b;
        break;
      }
      case EventType::Arrived:
        for (std::uint64_t i = 0; i < event.b; ++i) side.arrivals.push_back(event.key);
        break;
      case EventType::Lost:
        if (side.is_lost) std::abort();
        side.is_lost = true;
        side.lost = static_cast<Code>(event.code);
        break;
      default:
        std::abort();
    }
  }
}

bool Sim::run(Nanos limit, const std::function<bool()>& done) {
  std::uint64_t standing = 0;
  for (;;) {
    pump(0);
    pump(1);
    if (done()) return true;
    Nanos next = queue_.empty() ? kNever : queue_.top().time;
    for (Side& side : sides_) {
      if (!side.dead) next = std::min(next, side.session->next_deadline(now_));
    }
    if (next == kNever || next > limit) return false;
    standing = next <= now_ ? standing + 1 : 0;
    if (standing > 100'000) return false;  // it spins
    now_ = std::max(now_, next);
    ++steps_;
    while (!queue_.empty() && queue_.top().time <= now_) {
      Arrival arrival = std::move(const_cast<Arrival&>(queue_.top()));
      queue_.pop();
      if (arrival.to < 0) {
        arrival.action();
        continue;
      }
      Side& side = sides_[arrival.to];
      if (side.dead) continue;
      if (tap) tap(arrival.to, arrival.bytes);
      side.delivered_bytes += arrival.bytes.size();
      side.session->on_datagram(arrival.bytes, now_);
    }
  }
}

bool Sim::quiet() const {
  return sides_[0].session->outstanding() == 0 && sides_[1].session->outstanding() == 0;
}

}  // namespace genie::datagram::sim
