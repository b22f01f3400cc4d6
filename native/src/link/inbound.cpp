#include "genie/inbound.h"

#include <algorithm>
#include <utility>

namespace genie {

bool Incoming::fits(std::uint64_t offset, std::uint64_t count) const {
  if (offset < prefix_ || offset > length || count > length - offset) return false;
  const auto after =
      std::upper_bound(ahead_.begin(), ahead_.end(), std::pair{offset, ~std::uint64_t{0}});
  if (after != ahead_.end() && after->first < offset + count) return false;
  return after == ahead_.begin() || std::prev(after)->second <= offset;
}

void Incoming::add(std::uint64_t offset, std::uint64_t count) {
  verified += count;
  std::uint64_t end = offset + count;
  if (offset == prefix_) {
    auto joined = ahead_.begin();
    while (joined != ahead_.end() && joined->first == end) end = (joined++)->second;
    prefix_ = end;
    ahead_.erase(ahead_.begin(), joined);
    return;
  }
  auto after = std::upper_bound(ahead_.begin(), ahead_.end(), std::pair{offset, ~std::uint64_t{0}});
  const bool left = after != ahead_.begin() && std::prev(after)->second == offset;
  const bool right = after != ahead_.end() && after->first == end;
  if (left && right) {
    std::prev(after)->second = after->second;
    ahead_.erase(after);
  } else if (left) {
    std::prev(after)->second = end;
  } else if (right) {
    after->first = offset;
  } else {
    ahead_.insert(after, {offset, end});
  }
}

void Inbound::add(const Region& region) { regions_.insert_or_assign(region.key, region); }

bool Inbound::hang(const Key& key, std::shared_ptr<Bell> bell) {
  const auto found = regions_.find(key);
  if (found == regions_.end()) return false;
  found->second.bell = std::move(bell);
  return true;
}

std::uint64_t Inbound::rings(const Key& key) const {
  const auto found = regions_.find(key);
  if (found == regions_.end() || found->second.bell == nullptr) return 0;
  return found->second.bell->rings();
}

Refusal Inbound::open(std::uint64_t message, const Destination& dst) {
  const auto found = regions_.find(dst.key);
  if (found == regions_.end() || found->second.arena != dst.arena) return {623, 0};
  Region& region = found->second;
  if (dst.epoch != region.epoch || region.epoch < epoch_) {
    return {624, std::max(epoch_, region.epoch)};
  }
  // All below 2^63 (the link has checked), so that the sums cannot wrap.
  if (dst.offset < region.offset || dst.offset + dst.length > region.offset + region.length) {
    return {625, region.length};
  }
  if (!region.writable) return {626, 0};
  const std::uint64_t start = dst.offset - region.offset;
  bool taken = false;
  open_.each([&](std::uint64_t, const Incoming& other) {
    taken |= other.region == &region && start < other.start + other.length &&
             other.start < start + dst.length;
  });
  if (taken) return {627, 0};
  Incoming incoming;
  incoming.region = &region;
  incoming.start = start;
  incoming.length = dst.length;
  open_.insert(message, std::move(incoming));
  return {};
}

bool Inbound::drop(std::uint64_t message) {
  ++generation_;
  return open_.erase(message);
}

void Inbound::clear() {
  ++generation_;
  open_.clear();
  regions_.clear();
}

}  // namespace genie
