// A session's beginning, its end, and what is asked of it. How it receives stands in
// session_receive.cpp, when and what it sends in session_send.cpp.
#include "genie/session.h"

namespace genie::datagram {

namespace {

constexpr std::uint64_t kMaxWindow = std::uint64_t{1} << 32;

bool valid(const SessionOptions& o) {
  return o.max_datagram >= kMinDatagram && o.max_datagram <= kMaxDatagram &&
         o.window >= o.max_datagram && o.window <= kMaxWindow && o.peer_window >= o.max_datagram &&
         o.peer_window <= kMaxWindow && o.stall_timeout >= 10 * kMilli && o.queue >= 1 &&
         o.queue <= (1u << 20) + 1;
}

}  // namespace

std::unique_ptr<Session> Session::create(const SessionOptions& options, Nanos now) {
  if (!valid(options)) return nullptr;
  std::unique_ptr<Session> session(new Session(options, now));
  if (options.protection == Protection::Aes128Gcm) {
    session->sealer_ = Gcm::create(options.send_key, true);
    session->opener_ = Gcm::create(options.receive_key, false);
    if (!session->sealer_ || !session->opener_) return nullptr;
  }
  return session;
}

Session::Session(const SessionOptions& options, Nanos now)
    : options_(options),
      sender_(chunk_bytes(options.max_datagram), options.queue),
      receiver_(chunk_bytes(options.max_datagram)),
      rate_(options.max_datagram, options.peer_window, options.shared_path),
      scratch_(options.max_datagram),
      heard_at_(now),
      sent_at_(now),
      credit_(options.peer_window) {}

// -- orders ---------------------------------------------------------------------------------

Code Session::post(const Order& order) {
  if (ended()) return why_;
  return sender_.post(order);
}

void Session::set_window(std::uint64_t bytes) {
  options_.window = bytes;
  ping_owed_ = true;  // what carries the news
}

void Session::end(Code code) {
  if (state_ == State::Ended) return;
  if (why_ == Code::Ok) why_ = code;
  if (state_ == State::Open) unfinished_ = sender_.unfinished();
  state_ = State::Ended;
  sender_.fail_all(why_);
}

void Session::close(Nanos now) {
  if (state_ != State::Open) return;
  why_ = Code::Closed;
  state_ = State::Closing;
  unfinished_ = sender_.unfinished();
  sender_.fail_all(why_);
  farewell_at_ = now;
}

void Session::abort(Code code) { end(code); }

// -- state ----------------------------------------------------------------------------------

void Session::take_events(std::vector<Event>& out) {
  receiver_.take_events(out);
  sender_.take_events(out);
  if (ended() && !lost_reported_) {
    lost_reported_ = true;
    out.push_back({EventType::Lost, static_cast<std::uint16_t>(why_), 0, 0, {}});
  }
}

bool Session::has_events() const {
  return receiver_.has_events() || sender_.has_events() || (ended() && !lost_reported_);
}

SessionCounters Session::counters() const {
  SessionCounters out = counters_;
  out.bytes_landed = receiver_.landed_bytes();
  out.in_flight = flight_.bytes();
  out.window = rate_.window();
  out.rtt = rtt_.known() ? rtt_.smoothed() : 0;
  out.base_rtt = rate_.base_rtt() == kNever ? 0 : rate_.base_rtt();
  return out;
}

}  // namespace genie::datagram
