#include "genie/courier.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>
#include <utility>
#include <vector>

namespace genie {

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) ::close(fd_);
}

std::shared_ptr<OwnedFd> OwnedFd::duplicate(int fd) {
  const int own = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return own < 0 ? nullptr : std::make_shared<OwnedFd>(own);
}

void Bell::ring() {
  ++rings_;
  const std::uint64_t one = 1;
  // Full after 2^64 - 2 rings that nobody heard: then one more says nothing new.
  [[maybe_unused]] const auto written = ::write(eventfd_->fd(), &one, sizeof one);
}

Courier::Courier(Act act)
    : act_(std::move(act)),
      wake_(std::make_shared<OwnedFd>(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))) {}

Courier::~Courier() { stop(); }

bool Courier::start(std::string& error) {
  if (wake_->fd() < 0) {
    error = "no descriptors are left";
    return false;
  }
  try {
    thread_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), "genie-courier");
      run();
    });
  } catch (const std::system_error& failure) {
    error = failure.what();
    return false;
  }
  return true;
}

void Courier::add(std::uint64_t op, std::shared_ptr<OwnedFd> trigger) {
  {
    const std::lock_guard hold(lock_);
    triggers_.insert_or_assign(op, std::move(trigger));
  }
  wake();
}

void Courier::remove(std::uint64_t op) {
  {
    const std::lock_guard hold(lock_);
    if (triggers_.erase(op) == 0) return;
  }
  wake();  // the thread holds the descriptor while it waits on it
}

void Courier::conclude(std::uint64_t op) {
  {
    const std::lock_guard hold(lock_);
    const auto found = triggers_.find(op);
    if (found == triggers_.end()) return;
    concluded_.emplace_back(op, std::move(found->second));
    triggers_.erase(found);
  }
  wake();
}

void Courier::stop() {
  {
    const std::lock_guard hold(lock_);
    stopping_ = true;
  }
  wake();
  if (thread_.joinable()) thread_.join();
}

void Courier::abandon() {
  if (thread_.joinable()) thread_.detach();
}

void Courier::wake() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_->fd(), &one, sizeof one);
}

void Courier::run() {
  std::vector<std::pair<std::uint64_t, std::shared_ptr<OwnedFd>>> known;
  std::vector<std::pair<std::uint64_t, std::shared_ptr<OwnedFd>>> concluded;
  std::vector<pollfd> watched;
  const auto taken = [](int fd) {
    std::uint64_t count = 0;
    return ::read(fd, &count, sizeof count) == sizeof count ? count : 0;
  };
  for (bool changed = true;;) {
    if (changed) {
      const std::lock_guard hold(lock_);
      if (stopping_) return;
      concluded.swap(concluded_);
      known.assign(triggers_.begin(), triggers_.end());
      watched.assign(1, {wake_->fd(), POLLIN, 0});
      for (const auto& [op, trigger] : known) watched.push_back({trigger->fd(), POLLIN, 0});
    }
    changed = false;
    for (const auto& [op, trigger] : concluded) act_(op, taken(trigger->fd()), true);
    concluded.clear();
    if (::poll(watched.data(), watched.size(), -1) <= 0) continue;
    for (std::size_t i = 1; i < watched.size(); ++i) {
      if (watched[i].revents == 0) continue;
      if (const std::uint64_t times = taken(watched[i].fd); times > 0) {
        act_(known[i - 1].first, times, false);
      }
    }
    if (watched[0].revents != 0) changed = taken(watched[0].fd) > 0;
  }
}

}  // namespace genie
