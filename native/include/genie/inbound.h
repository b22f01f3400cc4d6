// The receiving side: which memory a peer may write, and how far each transfer has come.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "genie/flat_map.h"
#include "genie/link_types.h"

namespace genie {

// Why a transfer is turned away: the number of an error code (0: it is not) and its detail.
struct Refusal {
  std::uint16_t code = 0;
  std::uint64_t detail = 0;
};

class Incoming {
 public:
  Region* region = nullptr;
  std::uint64_t start = 0;
  std::uint64_t length = 0;
  std::uint64_t verified = 0;  // bytes, wherever they stand
  std::uint64_t reported = 0;  // of these, what the sender was, or will be, told of
  std::uint64_t ack = 0;       // where its pending acknowledgement stands, counted from 1

  // True when no byte of [offset, offset + count) has come before and none is beyond the end.
  bool fits(std::uint64_t offset, std::uint64_t count) const;
  // Notes that range as verified. Striped streams may deliver ranges in any order.
  void add(std::uint64_t offset, std::uint64_t count);
  std::size_t gaps() const { return ahead_.size(); }

 private:
  std::uint64_t prefix_ = 0;                                    // all before it is there
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ahead_;  // [begin, end), sorted, apart
};

class Inbound {
 public:
  void add(const Region& region);
  // Has arrivals in all of the region ring a bell. False: it is not known.
  bool hang(const Key& key, std::shared_ptr<Bell> bell);
  // How often the region's bell was rung.
  std::uint64_t rings(const Key& key) const;
  // Forgets the region, and calls f(message) for each transfer that this ends.
  template <typename F>
  bool withdraw(const Key& key, F f) {
    const auto found = regions_.find(key);
    if (found == regions_.end()) return false;
    Region* region = &found->second;
    drop_where([region](const Incoming& incoming) { return incoming.region == region; }, f);
    regions_.erase(found);
    return true;
  }
  // Refuses handles of epochs before `epoch`, and calls f(message) for each transfer this ends.
  template <typename F>
  void fence(std::uint64_t epoch, F f) {
    if (epoch > epoch_) epoch_ = epoch;
    drop_where([this](const Incoming& in) { return in.region->epoch < epoch_; }, f);
  }

  std::uint64_t epoch() const { return epoch_; }
  std::size_t open_count() const { return open_.size(); }
  // Grows whenever a transfer was ended from this side: places handed out before are void.
  std::uint64_t generation() const { return generation_; }

  Refusal open(std::uint64_t message, const Destination& dst);
  Incoming* find(std::uint64_t message) { return open_.find(message); }
  // Ends a transfer that is not complete: its bytes so far mean nothing.
  bool drop(std::uint64_t message);
  // The transfer is complete.
  void close(std::uint64_t message) { open_.erase(message); }
  void clear();

 private:
  template <typename T, typename F>
  void drop_where(T test, F f) {
    std::vector<std::uint64_t> ended;
    open_.each([&](std::uint64_t message, Incoming& incoming) {
      if (test(incoming)) ended.push_back(message);
    });
    for (const auto message : ended) {
      drop(message);
      f(message);
    }
  }

  std::unordered_map<Key, Region, KeyHash> regions_;
  FlatMap<Incoming> open_;
  std::uint64_t epoch_ = 0;
  std::uint64_t generation_ = 0;
};

}  // namespace genie
