// libFuzzer on the parser and a whole session: bodies that carry a correct sum, so that everything
// behind the integrity check is reached; and datagrams that are what the fuzzer makes of them.
//
// Input: commands. u8 kind, u16 size, then so many bytes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "genie/session.h"

using namespace genie;
using namespace genie::datagram;

namespace {

constexpr std::size_t kDatagram = 2048;
constexpr std::size_t kMemory = 64 << 10;
constexpr std::size_t kGuard = 4096;

struct World {
  World() : bytes(kMemory + 2 * kGuard, std::byte{0xc5}), source(kMemory, std::byte{7}) {
    options.protection = Protection::Crc32c;
    options.local_connection = 1;
    options.peer_connection = 2;
    options.max_datagram = kDatagram;
    options.stall_timeout = kSecond;
    session = Session::create(options, now);
    for (std::uint64_t arena = 1; arena <= 4; ++arena) {
      Region region;
      region.base = bytes.data() + kGuard + (arena - 1) * (kMemory / 4);
      region.arena = arena;
      region.length = kMemory / 4;
      region.epoch = 1;
      region.key = Key{arena, arena};
      region.writable = arena != 4;
      session->add(region);
    }
  }

  void authentic(const std::byte* body, std::size_t size) {
    std::vector<std::byte> frame(kHeaderBytes + size);
    std::memcpy(frame.data() + kHeaderBytes, body, size);
    datagram::Header header;
    header.flags = kEliciting;
    header.body = static_cast<std::uint16_t>(size);
    header.connection = 1;
    header.number = number++;
    encode_header(header, frame.data());
    std::uint32_t sum = crc32c(0, frame.data(), kSealedHeaderBytes);
    sum = crc32c(sum, body, size);
    store<std::uint32_t>(frame.data() + kSealedHeaderBytes, sum);
    session->on_datagram(frame, now);
  }

  // A well-formed record from a few bytes: reaches the states behind the parser quickly.
  void structured(const std::byte* in, std::size_t count) {
    const auto pick = [&](std::size_t i) {
      return i < count ? std::to_integer<unsigned>(in[i]) : 0;
    };
    const std::size_t chunk = chunk_bytes(kDatagram);
    Record record;
    record.type = static_cast<RecordType>(1 + pick(0) % 6);
    record.message = message_number(pick(1) % 4, pick(2) % 4);
    record.aux = pick(3);
    record.cumulative = pick(4) % 64;
    record.largest = pick(5) % 64;
    record.bits = {pick(6), pick(7), ~std::uint64_t{0} << (pick(8) % 64), ~std::uint64_t{0}};
    record.detail = pick(4);
    if (record.type == RecordType::Data || record.type == RecordType::Open) {
      record.length = pick(4) * 64;
      record.offset = std::min<std::uint64_t>(record.length, pick(5) % 8 * chunk);
      record.size =
          static_cast<std::uint16_t>(std::min<std::uint64_t>(record.length - record.offset, chunk));
      const std::uint64_t arena = pick(6) % 5;
      record.destination = {arena, pick(7) * 64ull, record.length, 1, Key{arena, arena}};
      record.payload = source.data();
    }
    std::vector<std::byte> body(record_head_bytes(record.type) + padded(record.size));
    const std::size_t head = encode_record(record, body.data());
    if (record.size != 0) std::memcpy(body.data() + head, record.payload, record.size);
    authentic(body.data(), body.size());
  }

  void pump() {
    session->on_tick(now);
    std::byte out[kDatagram];
    for (int sent = 0; session->transmit(now, out) != 0; ++sent) {
      if (sent > 3000) std::abort();  // no end
    }
    std::vector<Event> events;
    session->take_events(events);
  }

  void check() const {
    for (std::size_t i = 0; i < kGuard; ++i) {
      if (bytes[i] != std::byte{0xc5} || bytes[bytes.size() - 1 - i] != std::byte{0xc5}) {
        std::abort();
      }
    }
    // The fourth region is read-only.
    for (std::size_t i = 0; i < kMemory / 4; ++i) {
      if (bytes[kGuard + 3 * (kMemory / 4) + i] != std::byte{0xc5}) std::abort();
    }
  }

  Nanos now = kSecond;
  SessionOptions options;
  std::uint64_t number = 0;
  std::vector<std::byte> bytes;
  std::vector<std::byte> source;
  std::unique_ptr<Session> session;
  std::uint64_t op = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  World world;
  const auto* in = reinterpret_cast<const std::byte*>(data);
  while (size >= 3) {
    const auto kind = std::to_integer<unsigned>(in[0]) % 8;
    std::size_t count = load<std::uint16_t>(in + 1);
    in += 3;
    size -= 3;
    count = std::min({count, size, kDatagram - kHeaderBytes});
    switch (kind) {
      case 0:
      case 1:
        world.authentic(in, count);
        break;
      case 2:
        world.structured(in, count);
        break;
      case 3:
        world.session->on_datagram({in, count}, world.now);
        break;
      case 4: {
        Order order;
        order.op = ++world.op;
        order.source = world.source.data();
        order.dst.length = count * 8;
        order.priority = static_cast<int>(world.op % 4);
        world.session->post(order);
        break;
      }
      case 5:
        world.session->cancel(count % (world.op + 1));
        break;
      case 6:
        world.now += count * kMicro;
        break;
      default:
        if (count % 7 == 0) world.session->withdraw(Key{1, 1});
        if (count % 11 == 0) world.session->fence(2);
        if (count % 13 == 0) world.session->close(world.now);
        break;
    }
    if (kind >= 4 && kind != 6) count = 0;  // its number was all it needed
    in += count;
    size -= count;
    world.pump();
  }
  world.check();
  return 0;
}
