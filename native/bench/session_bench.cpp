// What the protocol costs without a network: CPU time of each side for a large message, and for
// small ones. One thread; CPU time, so that a busy machine does not blur it much.
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "genie/session.h"

using namespace genie;
using namespace genie::datagram;

namespace {

double cpu() {
  timespec t;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

Nanos wall() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + static_cast<Nanos>(t.tv_nsec);
}

std::byte* pages(std::size_t bytes) {
  return static_cast<std::byte*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
}

struct Costs {
  double send = 0, receive = 0, answer = 0;
};

// Moves what the sessions have to say, bursts of 32 in turn, and adds up where the time went.
Costs exchange(Session& a, Session& b, std::byte* frames, std::size_t frame,
               bool (*done)(Session&)) {
  Costs costs;
  std::size_t sizes[64];
  std::byte back[kMaxDatagram];
  while (!done(a)) {
    const Nanos now = wall();
    double start = cpu();
    std::size_t count = 0;
    while (count < 32 && (sizes[count] = a.transmit(now, frames + count * frame)) != 0) ++count;
    costs.send += cpu() - start;
    start = cpu();
    for (std::size_t i = 0; i < count; ++i) b.on_datagram({frames + i * frame, sizes[i]}, now);
    std::size_t size = b.transmit(now, back);
    costs.receive += cpu() - start;
    start = cpu();
    while (size != 0) {
      a.on_datagram({back, size}, now);
      size = b.transmit(now, back);
    }
    a.on_tick(now);
    b.on_tick(now);
    costs.answer += cpu() - start;
  }
  return costs;
}

void bench(Protection protection, std::size_t datagram) {
  SessionOptions options;
  options.protection = protection;
  options.max_datagram = datagram;
  options.shared_path = false;
  auto a = Session::create(options, wall());
  auto b = Session::create(options, wall());
  const std::size_t bytes = 64 << 20;
  std::byte* source = pages(bytes);
  std::byte* target = pages(bytes);
  std::byte* frames = pages(64 * 65536);
  std::memset(source, 3, bytes);
  Region region;
  region.base = target;
  region.arena = 1;
  region.length = bytes;
  region.epoch = 1;
  region.key = Key{1, 2};
  region.writable = true;
  b->add(region);
  std::vector<double> send, receive, copy;
  const auto done = [](Session& s) { return s.outstanding() == 0; };
  for (int i = 0; i < 7; ++i) {
    double start = cpu();
    std::memcpy(target, source, bytes);
    copy.push_back(cpu() - start);
    Order order;
    order.op = static_cast<std::uint64_t>(i) + 1;
    order.source = source;
    order.dst = {1, 0, bytes, 1, region.key};
    a->post(order);
    const Costs costs = exchange(*a, *b, frames, 65536, done);
    send.push_back(costs.send + costs.answer / 2);
    receive.push_back(costs.receive + costs.answer / 2);
    std::vector<Event> events;
    a->take_events(events);
    b->take_events(events);
  }
  const auto rate = [&](std::vector<double>& seconds) {
    std::sort(seconds.begin(), seconds.end());
    return static_cast<double>(bytes) * 1e-9 / seconds[seconds.size() / 2];
  };
  const char* name = protection == Protection::Crc32c ? "crc32c" : "aes-gcm";
  std::printf("%s %5zu: send %.2f GB/s, receive %.2f GB/s, memcpy %.2f GB/s\n", name, datagram,
              rate(send), rate(receive), rate(copy));
  const std::size_t small = 100'000;
  double start = cpu();
  std::size_t next = 0;
  std::vector<Event> events;
  std::size_t sizes[64];
  std::byte back[kMaxDatagram];
  std::size_t ended = 0;
  while (ended < small) {
    const Nanos now = wall();
    while (next < small && a->outstanding() < 512) {
      Order order;
      order.op = 1000 + next;
      order.source = source;
      order.dst = {1, next * 64, 64, 1, region.key};
      a->post(order);
      ++next;
    }
    std::size_t count = 0;
    while (count < 32 && (sizes[count] = a->transmit(now, frames + count * 65536)) != 0) ++count;
    for (std::size_t i = 0; i < count; ++i) b->on_datagram({frames + i * 65536, sizes[i]}, now);
    while (const std::size_t size = b->transmit(now, back)) a->on_datagram({back, size}, now);
    a->on_tick(now);
    b->on_tick(now);
    events.clear();
    a->take_events(events);
    for (const Event& event : events) ended += event.type == EventType::Completed ? 1 : 0;
  }
  std::printf("%s %5zu: 64 B messages, both sides: %.0f ns each\n", name, datagram,
              (cpu() - start) * 1e9 / static_cast<double>(small));
  ::munmap(source, bytes);
  ::munmap(target, bytes);
}

}  // namespace

int main() {
  for (const Protection protection : {Protection::Crc32c, Protection::Aes128Gcm}) {
    for (const std::size_t datagram : {1472ul, 8972ul, 65504ul}) bench(protection, datagram);
  }
}
