// Damage, forgery and lies.
#include <doctest/doctest.h>

#include <array>
#include <functional>
#include <optional>

#include "world.h"

using namespace genie;
using namespace genie::datagram;
using namespace genie::datagram::sim;

namespace {

// All bytes of both sides' memory that a peer could reach.
std::uint64_t digest(Buffer& buffer) { return crc32c(0, buffer.data(), buffer.size()); }

// Seals datagrams as the peer of `victim` would: an authenticated attacker.
class Liar {
 public:
  Liar(const SessionOptions& own) : options_(own), gcm_(Gcm::create(own.send_key, true)) {}

  std::vector<std::byte> seal(const std::vector<Record>& records, std::uint64_t number,
                              std::size_t pad_to = 0, std::uint8_t flags = kEliciting) {
    std::vector<std::byte> out(kHeaderBytes);
    for (const Record& record : records) {
      std::byte head[kOpenBytes];
      const std::size_t size = encode_record(record, head);
      out.insert(out.end(), head, head + size);
      if (record.payload != nullptr) {
        out.insert(out.end(), record.payload, record.payload + record.size);
      }
      out.resize(kHeaderBytes + padded(out.size() - kHeaderBytes));
    }
    if (out.size() < pad_to) out.resize(pad_to);
    datagram::Header header;
    const bool sealed = options_.protection == Protection::Aes128Gcm;
    header.flags = static_cast<std::uint8_t>(flags | (sealed ? kSealed : 0));
    header.body = static_cast<std::uint16_t>(out.size() - kHeaderBytes);
    header.connection = options_.peer_connection;
    header.epoch = epoch ? *epoch : options_.epoch;
    header.number = number;
    encode_header(header, out.data());
    if (sealed) {
      gcm_->begin(header.epoch, number, out.data(), kSealedHeaderBytes);
      gcm_->add(out.data() + kHeaderBytes, out.data() + kHeaderBytes, header.body);
      gcm_->seal(out.data() + kSealedHeaderBytes);
    } else {
      std::uint32_t sum = crc32c(0, out.data(), kSealedHeaderBytes);
      sum = crc32c(sum, out.data() + kHeaderBytes, header.body);
      store(out.data() + kSealedHeaderBytes, std::array<std::uint32_t, 4>{sum, 0, 0, 0});
    }
    return out;
  }

  std::optional<std::uint32_t> epoch;

 private:
  SessionOptions options_;
  std::unique_ptr<Gcm> gcm_;
};

Record open_record(const Buffer& buffer, std::uint64_t message, std::uint64_t offset,
                   std::uint16_t size, std::uint64_t length, const std::byte* payload) {
  Record record;
  record.type = RecordType::Open;
  record.message = message;
  record.offset = offset;
  record.size = size;
  record.length = length;
  record.destination = buffer.part(0, length);
  record.payload = payload;
  return record;
}

}  // namespace

TEST_CASE("a million mutated datagrams: none is accepted, nothing is written") {
  std::uint64_t mutated = 0, accepted = 0;
  for (const Protection protection : {Protection::Crc32c, Protection::Aes128Gcm}) {
    const auto [a, b] = matching(protection, 1472, 7);
    auto sender = Session::create(a, kSecond);
    auto victim = Session::create(b, kSecond);
    Buffer dst(*victim, 1, 60'000);
    const auto source = noise(60'000, 3);
    Order order;
    order.source = source.data();
    order.dst = dst.whole();
    order.op = 1;
    REQUIRE(sender->post(order) == Code::Ok);
    std::vector<std::vector<std::byte>> originals;
    std::vector<std::byte> frame(1472);
    while (const std::size_t size = sender->transmit(kSecond, frame.data())) {
      originals.emplace_back(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size));
    }
    REQUIRE(originals.size() > 10);
    // The message is open, so that large records would be decrypted into place.
    REQUIRE(victim->on_datagram(originals[0], kSecond));
    const std::uint64_t landed = victim->counters().bytes_landed;
    Random random(11);
    for (int i = 0; i < 520'000; ++i) {
      const auto& original = originals[random.below(originals.size())];
      auto copy = original;
      switch (random.below(5)) {
        case 0:
        case 1:
          for (auto n = 1 + random.below(8); n > 0; --n) {
            copy[random.below(copy.size())] ^= std::byte{1} << random.below(8);
          }
          break;
        case 2:
          copy.resize(random.below(copy.size()));
          break;
        case 3: {  // a piece of another datagram
          const auto& other = originals[random.below(originals.size())];
          const std::size_t size = std::min(copy.size(), other.size());
          const std::size_t begin = random.below(size);
          std::memcpy(copy.data() + begin, other.data() + begin, random.below(size - begin) + 1);
          break;
        }
        default:  // the header of a correct one with other numbers, its size kept true
          store<std::uint64_t>(copy.data() + 8, random.below(2) ? random.next() : random.below(99));
          if (random.below(2)) store<std::uint32_t>(copy.data() + 24, 0);
          break;
      }
      if (copy == original) continue;
      bool whole_other = false;
      for (const auto& other : originals) whole_other = whole_other || copy == other;
      if (whole_other) continue;
      ++mutated;
      if (victim->on_datagram(copy, kSecond)) ++accepted;
    }
    CHECK(victim->counters().bytes_landed == landed);
    CHECK_FALSE(victim->ended());
    CHECK(dst.guarded());
    // What garbage was decrypted into missing chunks is gone when the real ones come.
    for (std::size_t i = 1; i < originals.size(); ++i) victim->on_datagram(originals[i], kSecond);
    // The window was not full: only what was sent so far can be compared.
    const std::uint64_t got = victim->counters().bytes_landed;
    CHECK(std::memcmp(dst.data(), source.data(), got) == 0);
  }
  MESSAGE(mutated << " mutated, " << accepted << " accepted");
  CHECK(mutated >= 1'000'000);
  CHECK(accepted == 0);
}

TEST_CASE("a replayed datagram is not accepted, nor one of another epoch or session") {
  for (const Protection protection : {Protection::Crc32c, Protection::Aes128Gcm}) {
    const auto [a, b] = matching(protection, 1472, 7);
    auto victim = Session::create(b, kSecond);
    Buffer dst(*victim, 1, 32);
    const auto source = noise(32, 1);
    Liar peer(a);
    const auto once =
        peer.seal({open_record(dst, message_number(1, 0), 0, 32, 32, source.data())}, 5);
    CHECK(victim->on_datagram(once, kSecond));
    CHECK(dst.holds(source.data()));
    std::memset(dst.data(), 0, 32);
    CHECK_FALSE(victim->on_datagram(once, kSecond));
    CHECK(victim->counters().duplicates == 1);
    // So far ahead that the first number leaves the window: still no second time.
    CHECK(victim->on_datagram(peer.seal({Record{}}, 5 + 2 * kPacketSpan), kSecond));
    CHECK_FALSE(victim->on_datagram(once, kSecond));
    peer.epoch = a.epoch + 1;
    CHECK_FALSE(victim->on_datagram(peer.seal({Record{}}, 6 + 2 * kPacketSpan), kSecond));
    const auto [stranger, other] = matching(protection, 1472, 8);
    auto mimic = stranger;
    mimic.peer_connection = a.peer_connection;
    mimic.epoch = a.epoch;
    if (protection == Protection::Aes128Gcm) {
      CHECK_FALSE(victim->on_datagram(Liar(mimic).seal({Record{}}, 7 + 2 * kPacketSpan), kSecond));
    }
    CHECK_FALSE(victim->on_datagram(Liar(stranger).seal({Record{}}, 7 + 2 * kPacketSpan), kSecond));
    const std::vector<std::byte> zeros(32);
    CHECK(dst.holds(zeros.data()));
  }
}

TEST_CASE("an authentic peer that lies about sizes ends its session and writes nothing outside") {
  const auto payload = noise(1344, 1);
  const std::size_t chunk = chunk_bytes(1472);
  REQUIRE(chunk == 1344);
  using Lie = std::function<std::vector<Record>(Buffer&)>;
  const auto message = message_number(1, 0);
  const Lie lies[] = {
      // an offset that is not a chunk's
      [&](Buffer& b) {
        return std::vector{open_record(b, message, 64, 1344, 5000, payload.data())};
      },
      // a record shorter than its chunk
      [&](Buffer& b) { return std::vector{open_record(b, message, 0, 100, 5000, payload.data())}; },
      // an empty record behind the end
      [&](Buffer& b) { return std::vector{open_record(b, message, 1344, 0, 1344, nullptr)}; },
      // another length than it was opened with
      [&](Buffer& b) {
        return std::vector{open_record(b, message, 0, 64, 64, payload.data()),
                           open_record(b, message_number(1, 1), 0, 1344, 3000, payload.data()),
                           open_record(b, message_number(1, 1), 0, 1344, 4000, payload.data())};
      },
      // beyond the window of chunks
      [&](Buffer& b) {
        auto far =
            open_record(b, message, (kChunkSpan + 1) * 1344, 1344, 20'000'000, payload.data());
        return std::vector{far};
      },
      // a slot that is still in use
      [&](Buffer& b) {
        return std::vector{open_record(b, message_number(1, 3), 0, 1344, 3000, payload.data()),
                           open_record(b, message_number(2, 3), 0, 1344, 3000, payload.data())};
      },
      // acknowledging what was never sent
      [&](Buffer&) {
        Record ack;
        ack.type = RecordType::Ack;
        ack.largest = 12345;
        return std::vector{ack};
      },
      [&](Buffer&) {
        Record ack;
        ack.type = RecordType::Ack;
        ack.cumulative = 12345;
        return std::vector{ack};
      },
      // refusing what was never posted
      [&](Buffer&) {
        Record refuse;
        refuse.type = RecordType::Refuse;
        refuse.message = message_number(9, 9);
        return std::vector{refuse};
      },
  };
  for (const Protection protection : {Protection::Crc32c, Protection::Aes128Gcm}) {
    int number = 0;
    for (const Lie& lie : lies) {
      CAPTURE(number++);
      const auto [a, b] = matching(protection, 1472, 7);
      auto victim = Session::create(b, kSecond);
      Buffer dst(*victim, 1, 20'000'000);
      Liar peer(a);
      // One datagram each, so that every record fits.
      std::uint64_t at = 0;
      for (const Record& record : lie(dst)) victim->on_datagram(peer.seal({record}, at++), kSecond);
      CHECK(victim->ended());
      std::vector<Event> events;
      victim->take_events(events);
      REQUIRE_FALSE(events.empty());
      CHECK(events.back().type == EventType::Lost);
      CHECK(events.back().code == static_cast<std::uint16_t>(Code::Violation));
      CHECK(dst.guarded());
    }
  }
}

TEST_CASE("authentic noise never crashes, writes outside, or grows memory") {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    const auto [a, b] = matching(Protection::Crc32c, 2048, seed);
    auto victim = Session::create(b, kSecond);
    Buffer dst(*victim, 1, 100'000), bystander(*victim, 2, 4096);
    const std::uint64_t before = digest(bystander);
    Liar peer(a);
    Random random(seed);
    std::vector<std::byte> frame(2048);
    const auto payload = noise(2048, seed);
    std::uint64_t number = 0;
    for (int i = 0; i < 300 && !victim->ended(); ++i) {
      std::vector<Record> records;
      for (auto n = 1 + random.below(6); n > 0; --n) {
        Record record;
        record.type = static_cast<RecordType>(1 + random.below(6));
        record.message = message_number(random.below(3), random.below(4));
        record.aux = static_cast<std::uint32_t>(random.next());
        if (record.type == RecordType::Data || record.type == RecordType::Open) {
          record.length = random.below(6000);
          record.offset = std::min(record.length, chunk_bytes(2048) * random.below(3));
          record.size = static_cast<std::uint16_t>(
              std::min<std::uint64_t>(record.length - record.offset, chunk_bytes(2048)));
          record.destination = dst.part(random.below(90'000), record.length);
          if (random.chance(0.1)) record.destination.key.low ^= 1;
          record.payload = payload.data();
        } else if (record.type == RecordType::Ack) {
          record.largest = random.below(4);
          record.cumulative = random.below(4);
          record.message = random.next();
        } else {
          record.detail = random.next();
        }
        std::size_t total = kHeaderBytes + record_head_bytes(record.type) + padded(record.size);
        for (const Record& r : records) total += record_head_bytes(r.type) + padded(r.size);
        if (total <= 2048) records.push_back(record);
      }
      number += 1 + random.below(5);
      victim->on_datagram(peer.seal(records, number), kSecond + number * kMicro);
      const Nanos now = kSecond + number * kMicro;
      victim->on_tick(now);
      int sent = 0;
      while (victim->transmit(now, frame.data()) != 0) REQUIRE(++sent < 50);
    }
    CHECK(dst.guarded());
    CHECK(bystander.guarded());
    CHECK(digest(bystander) == before);
  }
}
