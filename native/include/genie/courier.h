// Sends that need nobody's word but a descriptor's: a process beside this one writes to an eventfd,
// and a thread that waits for that has the transfer sent which stands for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace genie {

// A descriptor of our own; -1 when the system had none left.
class OwnedFd {
 public:
  explicit OwnedFd(int fd) : fd_(fd) {}
  ~OwnedFd();
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;

  int fd() const { return fd_; }
  // Another descriptor of what the caller's `fd` is; null when there is none left.
  static std::shared_ptr<OwnedFd> duplicate(int fd);

 private:
  int fd_;
};

// An eventfd that says "your bytes are there" to whoever waits on it.
class Bell {
 public:
  explicit Bell(std::shared_ptr<OwnedFd> eventfd) : eventfd_(std::move(eventfd)) {}
  void ring();
  std::uint64_t rings() const { return rings_; }

 private:
  std::shared_ptr<OwnedFd> eventfd_;
  std::uint64_t rings_ = 0;
};

class Courier {
 public:
  // Called by the courier's thread when the trigger of `op` was written to, `times` times; `last`
  // says that it is not watched any more.
  using Act = std::function<void(std::uint64_t op, std::uint64_t times, bool last)>;

  explicit Courier(Act act);
  ~Courier();
  Courier(const Courier&) = delete;
  Courier& operator=(const Courier&) = delete;

  // Starts the thread. False, and `error` says why, when the system has no resources left.
  bool start(std::string& error);
  // Watches a non-blocking eventfd.
  void add(std::uint64_t op, std::shared_ptr<OwnedFd> trigger);
  void remove(std::uint64_t op);
  // Takes what was written to the trigger so far, and watches it no more.
  void conclude(std::uint64_t op);
  // Waits for the thread: `act` is not called any more.
  void stop();
  // After fork(): the thread is the parent's.
  void abandon();

 private:
  void run();
  void wake() const;

  Act act_;
  std::shared_ptr<OwnedFd> wake_;
  std::thread thread_;
  std::mutex lock_;  // the three below
  std::unordered_map<std::uint64_t, std::shared_ptr<OwnedFd>> triggers_;
  std::vector<std::pair<std::uint64_t, std::shared_ptr<OwnedFd>>> concluded_;
  bool stopping_ = false;
};

}  // namespace genie
