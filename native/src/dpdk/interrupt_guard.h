// Keeps DPDK's interrupt thread and the ports of memif apart.
//
// When a memif peer goes, or dies, the driver unmaps the shared memory in DPDK's interrupt thread,
// whatever another thread is just copying from it. Two threads that do not know of each other
// have to be made to: the interrupt thread spends its time in a callback of ours, and leaves it
// holding a lock, handles what there is to handle, and comes back. Ports hold the same lock,
// shared, while they touch what the driver may unmap.
#pragma once

#include <pthread.h>

namespace genie::datagram {

class InterruptGuard {
 public:
  // Begins, once a process. False when DPDK has no room for one more callback.
  static bool begin();
  // A port waits for its peer: interrupts are looked at every millisecond instead of every ten.
  static void hurry(bool yes);
  // Waits until the interrupt thread has forgotten events that it took before: of a descriptor that
  // was closed meanwhile, they would be taken for those of the next one of that number. Not under
  // a Hold.
  static void settle();

  // Held while a port may touch memory of its peer.
  class Hold {
   public:
    explicit Hold(bool needed) : needed_(needed) {
      if (needed_) pthread_rwlock_rdlock(lock());
    }
    ~Hold() {
      if (needed_) pthread_rwlock_unlock(lock());
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    bool needed_;
  };

 private:
  static pthread_rwlock_t* lock();
  static void park(void*);
};

}  // namespace genie::datagram
