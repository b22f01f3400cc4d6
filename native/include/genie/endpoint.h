// One side of a connection: a link, its wire, and the thread that drives them.
//
// Any thread may call any method. Whoever posts something small sends it at once when nobody else
// is at work, and whoever waits for events drives the wire itself, so that a round trip crosses
// no thread; the endpoint's own thread sleeps meanwhile, and does everything when nobody waits.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "genie/courier.h"
#include "genie/events.h"
#include "genie/link.h"
#include "genie/wire.h"

namespace genie {

std::int64_t now_ns();

class Endpoint {
 public:
  explicit Endpoint(const Terms& own);
  ~Endpoint();
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  // Starts the thread. False, and `error` says why, when the system has no resources left.
  bool start(std::string& error);
  // Goes on over `wire`. False when there is a peer already or none is wanted (any more).
  bool attach(std::unique_ptr<Wire> wire, const Terms& peer);
  // Calls f(wire) under the lock when there is one, for what only one kind of wire can do.
  template <typename F>
  bool with_wire(F f) {
    const Entry entry(*this);
    if (wire_ == nullptr || ended_) return false;
    const bool done = f(*wire_);
    kick();
    return done;
  }

  void add(const Region& region);
  // When it returns, no byte of the region will be written any more.
  bool withdraw(const Key& key);
  void fence(std::uint64_t epoch);
  void post(const Order& order);
  // Posts the order each time that the eventfd `trigger` is written to, one at a time, until it is
  // cancelled or fails. Takes a duplicate. False, and `error` says why, when it cannot.
  bool stand(const Order& order, int trigger, std::string& error);
  // Its eventfd is not written to any more: the order completes when the peer has verified what was
  // asked for so far.
  void conclude(std::uint64_t op);
  // What became of a standing order so far; of one that has completed once, of one that was
  // cancelled or failed nothing.
  Carried carried(std::uint64_t op);
  // Has whole arrivals in a region write to an eventfd instead of being events, until it is
  // withdrawn. Takes a duplicate. False: it is not known, or no descriptor is left.
  bool hang(const Key& key, int eventfd);
  // How often that was, so far.
  std::uint64_t rings(const Key& key);
  // When it returns, the source is not read any more.
  bool cancel(std::uint64_t op);
  // Has an Expired event come in `delay_ns`, unless one is due before.
  void alarm(std::int64_t delay_ns);

  EventQueue& events() { return events_; }
  // Waits for events and takes them; false after `timeout_ns` (negative: no bound) or wake().
  bool poll(std::vector<Event>& out, std::int64_t timeout_ns);
  void wake() { events_.interrupt(); }
  // Asks for the end: the event Lost follows.
  void close();
  // Waits for the thread and closes every descriptor. Nobody may be in poll() any more.
  void join();

  // Stops and restarts all movement, so that a test can line up what happens together.
  void hold(bool yes);
  Counters counters();

 private:
  static constexpr std::int64_t kLongest = 3600'000'000'000;  // no wait is longer

  // A lock that a busy driver gives up for whoever wants it.
  class Entry {
   public:
    explicit Entry(Endpoint& endpoint) : endpoint_(endpoint) {
      endpoint.waiting_.fetch_add(1);
      endpoint.lock_.lock();
      endpoint.waiting_.fetch_sub(1);
    }
    ~Entry() { endpoint_.lock_.unlock(); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    Endpoint& endpoint_;
  };

  bool inherited() const;
  void run();
  bool turn();
  void take_orders();
  bool send_now();
  void triggered(std::uint64_t op, std::uint64_t times, bool last);
  bool keep_alive(std::int64_t now);
  std::int64_t next_beat() const;
  void ring(std::int64_t now);
  void farewell();
  void salvage(Turn& turn);
  void end(std::uint16_t code, std::string text);
  void kick();   // wakes the thread if it sleeps
  void nudge();  // wakes it in any case
  void sleep(std::unique_lock<std::mutex>& hold);
  bool spin(std::vector<Event>& out, std::int64_t deadline);
  bool doze(std::int64_t limit_ns);
  bool interrupted();

  EventQueue events_;
  Counters counters_;
  Link link_;
  std::unique_ptr<Wire> wire_;
  std::unique_ptr<Courier> courier_;  // from the first standing order on
  std::thread thread_;
  int wake_fd_;
  int owner_pid_;

  std::mutex lock_;  // all above, but the events
  std::atomic<int> waiting_{0};
  std::atomic<int> drivers_{0};  // threads that wait for events and drive
  std::atomic<std::int64_t> lease_until_{0};
  std::atomic<bool> asleep_{false};
  std::atomic<bool> closing_{false};
  std::atomic<bool> held_{false};
  std::atomic<bool> spins_{false};
  bool ended_ = false;
  bool leased_ = false;   // drivers come and go; the peer need not ring
  bool dozing_ = false;   // one of them sleeps until the peer rings
  bool stirred_ = false;  // the thread had a turn meanwhile, of which that one knows nothing
  std::int64_t heard_ = 0;
  std::int64_t spoke_ = 0;
  std::int64_t alarm_ = 0;             // 0: none
  std::uint64_t interrupts_seen_ = 0;  // by poll(), which one thread calls at a time

  std::mutex inbox_lock_;
  std::vector<Order> inbox_;
  std::vector<Order> orders_;  // taken from the inbox; reused
  std::atomic<bool> posted_{false};
  std::mutex join_lock_;
};

}  // namespace genie
