// Drives the sessions of one port.
//
// A thread of its own runs everything to completion: what the port received, what sessions have
// to send, their timers. Whoever waits for events on a channel does that same work in the
// meantime, and the thread sleeps: a round trip then crosses no thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "genie/events.h"
#include "genie/port.h"

namespace genie::datagram {

// Monotonic nanoseconds.
Nanos clock_now();

class Poller;

// One session on a poller, as its owner sees it. Every method may be called from any thread.
class Channel {
 public:
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  bool add(const Region& region);
  // When it returns, no byte of the region will be written any more.
  bool withdraw(const Key& key);
  void fence(std::uint64_t epoch);
  // A problem found at once is returned, and no event follows.
  Code post(const Order& order);
  // When it returns, the source is not read any more, and no event follows.
  bool cancel(std::uint64_t op);
  EventQueue& events() { return events_; }
  // Waits for events and takes them; false after `timeout_ns` (negative: no bound) or wake().
  bool poll(std::vector<Event>& out, std::int64_t timeout_ns);
  void wake() { events_.interrupt(); }
  // Has an Expired event come in `delay_ns`, unless one is due before.
  void alarm(std::int64_t delay_ns);
  // Stops (true) and restarts all movement, for tests: what comes meanwhile is lost.
  void hold(bool yes);
  void close();
  // After Lost: gives the last words a moment, leaves the poller and closes the descriptor.
  // Nobody may be in poll() any more; all other calls find a session that has ended.
  void join();
  SessionCounters counters();
  std::uint64_t max_datagram() const { return session_->options().max_datagram; }
  // See Session::unfinished() and Session::finished().
  std::vector<std::pair<std::uint64_t, std::uint64_t>> unfinished();
  bool finished(std::uint64_t message);

 private:
  friend class Poller;
  Channel(Poller& poller, std::unique_ptr<Session> session, const Flow& flow);
  // Whether somebody called wake() since this was asked last.
  bool interrupted();

  Poller& poller_;
  std::unique_ptr<Session> session_;
  Flow flow_;
  EventQueue events_;
  std::unordered_map<Key, EventSlot, KeyHash> arrivals_;
  Nanos alarm_ = 0;  // 0: none
  std::uint64_t interrupts_seen_ = 0;
  bool connected_ = false;
  bool held_ = false;
  bool listed_ = false;
};

class Poller {
 public:
  // Takes the port over and starts the thread. Null, and `error` says why, when the system has no
  // resources left.
  static std::unique_ptr<Poller> start(std::unique_ptr<Port> port, std::string& error);
  // As stop().
  ~Poller();

  const PortTraits& traits() const { return traits_; }
  PortCounters counters();
  // Whether the port has a carrier.
  bool up();
  // Ends every session and the thread, and gives the port back.
  void stop();
  // Null, and `why`: PortUnusable when the datagrams are larger than the port carries, BadOption
  // when something is out of range or the local connection number is taken, NoMemory.
  std::unique_ptr<Channel> open(SessionOptions options, const Flow& flow, Code& why);

 private:
  friend class Channel;

  // A lock that a busy driver gives up for whoever wants it.
  class Entry {
   public:
    explicit Entry(Poller& poller) : poller_(poller) {
      poller.waiting_.fetch_add(1);
      poller.lock_.lock();
      poller.waiting_.fetch_sub(1);
    }
    ~Entry() { poller_.lock_.unlock(); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    Poller& poller_;
  };

  explicit Poller(std::unique_ptr<Port> port);
  void run();
  // Receives, ticks and sends once; true when there was something to do.
  bool turn(Nanos now);
  bool receive();
  bool serve(Channel& channel);
  // As serve(), and hands over what it gave, without waiting for others.
  void serve_now(Channel& channel);
  void report(Channel& channel);
  void tell(Channel& channel);
  Nanos next_deadline(Nanos now);
  void remove(Channel& channel);
  bool drive(Channel& channel, std::vector<Event>& out, std::int64_t timeout_ns);
  bool spin(Channel& channel, std::vector<Event>& out, Nanos limit);
  void wait(int own, int timer, Nanos until, bool port);
  void sleep(Nanos until, bool port);
  void kick();
  void kick_at(Nanos due);
  void rouse();

  const PortTraits traits_;
  std::unique_ptr<Port> port_;
  std::mutex lock_;  // the port, the sessions, and all below up to the next blank line
  std::unordered_map<std::uint32_t, Channel*> by_connection_;
  std::vector<Channel*> channels_;
  std::size_t first_ = 0;  // whose turn it is to send first
  std::vector<Event> events_;
  Nanos carrier_checked_ = 0;
  Nanos carrier_lost_ = 0;

  std::atomic<int> waiting_{0};
  std::atomic<int> drivers_{0};
  std::atomic<Nanos> driven_until_{0};
  std::atomic<bool> lingering_{false};  // asleep for a moment: somebody else drives
  std::atomic<bool> asleep_{false};     // asleep until there is work
  std::atomic<bool> dozing_{false};     // somebody who waits for events watches the port
  std::atomic<bool> stop_{false};
  int wake_fd_ = -1;
  int timer_fd_ = -1;
  int owner_pid_;
  std::thread thread_;
};

}  // namespace genie::datagram
