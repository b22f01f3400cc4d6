// Making interrupt handles is not called stable in DPDK 22.11; it has not changed since.
#define ALLOW_EXPERIMENTAL_API
#include "interrupt_guard.h"

#include <rte_interrupts.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace genie::datagram {

namespace {

constexpr useconds_t kPark = 10'000;
constexpr useconds_t kShortPark = 1'000;

std::atomic<int> waiting_{0};
std::atomic<unsigned> rounds_{0};
bool holding_ = false;  // of the interrupt thread alone

}  // namespace

pthread_rwlock_t* InterruptGuard::lock() {
  // Writers first: pollers that spin would keep the interrupt thread out for ever.
  static pthread_rwlock_t lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
  return &lock;
}

// Runs in DPDK's interrupt thread, in every round of its loop, because its descriptor is always
// ready. All other callbacks run between two calls of this one: with the lock held.
void InterruptGuard::park(void*) {
  rounds_.fetch_add(1);
  if (holding_) pthread_rwlock_unlock(lock());
  ::usleep(waiting_.load() > 0 ? kShortPark : kPark);
  pthread_rwlock_wrlock(lock());
  holding_ = true;
}

bool InterruptGuard::begin() {
  static std::mutex once;
  static bool begun = false;
  const std::lock_guard hold(once);
  if (begun) return true;
  const int fd = ::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
  rte_intr_handle* handle = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
  const bool made = fd >= 0 && handle != nullptr && rte_intr_fd_set(handle, fd) == 0 &&
                    rte_intr_type_set(handle, RTE_INTR_HANDLE_EXT) == 0 &&
                    rte_intr_callback_register(handle, &park, nullptr) == 0;
  if (!made) {
    if (handle != nullptr) rte_intr_instance_free(handle);
    if (fd >= 0) ::close(fd);
    return false;
  }
  begun = true;
  return true;
}

void InterruptGuard::settle() {
  hurry(true);
  // The round that begins after the present one waits for its events anew.
  const unsigned begun = rounds_.load();
  for (int i = 0; i < 1000 && rounds_.load() - begun < 2; ++i) ::usleep(kShortPark);
  hurry(false);
}

void InterruptGuard::hurry(bool yes) { waiting_.fetch_add(yes ? 1 : -1); }

}  // namespace genie::datagram
