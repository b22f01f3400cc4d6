// What happened on a connection, on its way from the thread that moves bytes to Python.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "genie/bytes.h"

namespace genie {

enum class EventType : std::uint8_t {
  Connected = 0,
  Progressed = 1,  // a: operation, b: bytes verified by the receiver
  Completed = 2,   // a: operation
  Failed = 3,      // a: operation, b: its detail, code
  Arrived = 4,     // key, b: how many times
  Expired = 5,     // a: operation whose alarm has rung
  Lost = 6,        // code, text; always the last
};

struct Event {
  EventType type = EventType::Connected;
  std::uint16_t code = 0;  // the number of GENnnnn
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  Key key{};
};

// Where in the undrained events an earlier one stands, so that a repetition joins it: a peer that
// reports faster than anybody reads must not fill our memory.
struct EventSlot {
  std::uint64_t batch = 0;
  std::size_t index = 0;
};

// Many writers, many readers. The eventfd becomes readable when there is something to take and
// nobody is known to be looking.
class EventQueue {
 public:
  EventQueue();
  ~EventQueue();
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  // The descriptor to wait on, or -1 when the system had none left (see ok()).
  int fd() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  bool pending() const { return pending_.load(std::memory_order_acquire); }
  // True when something other than progress is pending: what somebody may be waiting for.
  bool urgent() const { return urgent_.load(std::memory_order_acquire); }

  void connected();
  void progressed(std::uint64_t op, std::uint64_t verified, EventSlot& slot);
  void completed(std::uint64_t op);
  void failed(std::uint64_t op, std::uint16_t code, std::uint64_t detail);
  void arrived(const Key& key, EventSlot& slot);
  void expired(std::uint64_t op);
  void lost(std::uint16_t code, std::string text);

  // Moves what has happened to the end of `out`; false when there was nothing.
  bool take(std::vector<Event>& out);
  // The words that go with Lost.
  std::string lost_text();
  // True when something is pending; false after `timeout_ns` (negative: no bound).
  bool wait(std::int64_t timeout_ns);
  // Makes a wait() return, and changes interrupts() for those who spin.
  void interrupt();
  std::uint64_t interrupts() const { return interrupts_.load(std::memory_order_acquire); }
  // Gives the descriptor back. Nobody may be in wait().
  void close();
  // While somebody spins on pending() no descriptor needs to be written.
  void watched(bool yes);

 private:
  void push(const Event& event);
  void signal();

  int fd_;
  std::atomic<bool> pending_{false};
  std::atomic<bool> urgent_{false};
  std::atomic<std::uint64_t> interrupts_{0};
  std::mutex lock_;
  std::vector<Event> events_;
  std::string text_;
  std::uint64_t batch_ = 1;
  int watchers_ = 0;
  bool signalled_ = false;
};

}  // namespace genie
