// Frames, sums, ciphers and windows: the parts below the session.
#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <vector>

#include "genie/crypto.h"
#include "genie/fault.h"
#include "genie/frame.h"
#include "genie/window.h"

using namespace genie;
using namespace genie::datagram;

namespace {

std::vector<std::byte> noise(std::size_t size, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::byte> out(size);
  for (auto& byte : out) byte = static_cast<std::byte>(random.next());
  return out;
}

}  // namespace

TEST_CASE("CRC32C: known values, and the fast way equals the portable one at every length") {
  const char* text = "123456789";
  CHECK(crc32c(0, reinterpret_cast<const std::byte*>(text), 9) == 0xe3069283);
  const std::vector<std::byte> zeros(32);
  CHECK(crc32c(0, zeros.data(), 32) == 0x8a9136aa);
  const auto data = noise(9000, 1);
  std::vector<std::byte> copy(data.size());
  for (std::size_t size = 0; size <= data.size(); size += size < 900 ? 1 : 97) {
    const std::uint32_t expected = crc32c_portable(7, data.data(), size);
    REQUIRE(crc32c(7, data.data(), size) == expected);
    for (const Cold cold : {Cold::Neither, Cold::Source, Cold::Destination}) {
      std::fill(copy.begin(), copy.end(), std::byte{});
      REQUIRE(crc32c_copy(7, copy.data(), data.data(), size, cold) == expected);
      REQUIRE(std::memcmp(copy.data(), data.data(), size) == 0);
    }
    const std::size_t half = size / 3;
    REQUIRE(crc32c(crc32c(7, data.data(), half), data.data() + half, size - half) == expected);
  }
}

TEST_CASE("AES-128-GCM: NIST's test case 4, in uneven pieces") {
  const auto bytes = [](const char* hex) {
    std::vector<std::byte> out;
    for (; *hex; hex += 2) {
      unsigned value = 0;
      std::sscanf(hex, "%2x", &value);
      out.push_back(static_cast<std::byte>(value));
    }
    return out;
  };
  AesKey key;
  std::memcpy(key.data(), bytes("feffe9928665731c6d6a8f9467308308").data(), 16);
  const auto nonce = bytes("cafebabefacedbaddecaf888");
  const auto aad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
  const auto plain = bytes(
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
      "b5"
      "25b16aedf5aa0de657ba637b39");
  const auto expected = bytes(
      "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84"
      "aa"
      "051ba30b396a0aac973d58e091");
  const auto sealer = Gcm::create(key, true);
  const auto opener = Gcm::create(key, false);
  REQUIRE(sealer);
  REQUIRE(opener);
  const auto epoch = load<std::uint32_t>(nonce.data());
  const auto number = load<std::uint64_t>(nonce.data() + 4);
  std::vector<std::byte> out(plain.size()), back(plain.size());
  std::byte tag[16];
  REQUIRE(sealer->begin(epoch, number, aad.data(), aad.size()));
  REQUIRE(sealer->add(out.data(), plain.data(), 7));
  REQUIRE(sealer->add(out.data() + 7, plain.data() + 7, plain.size() - 7));
  REQUIRE(sealer->seal(tag));
  CHECK(out == expected);
  CHECK(std::memcmp(tag, bytes("5bc94fbc3221a5db94fae95ae7121a47").data(), 16) == 0);
  REQUIRE(opener->begin(epoch, number, aad.data(), aad.size()));
  REQUIRE(opener->add(back.data(), out.data(), out.size()));
  CHECK(opener->verify(tag));
  CHECK(back == plain);
  tag[3] ^= std::byte{1};
  REQUIRE(opener->begin(epoch, number, aad.data(), aad.size()));
  REQUIRE(opener->add(back.data(), out.data(), out.size()));
  CHECK_FALSE(opener->verify(tag));
}

TEST_CASE("AES-128-GCM: every engine seals alike, at every length and in any pieces") {
  MESSAGE("the best engine is " << std::string(Gcm::best()));
  AesKey key{};
  Random random(11);
  for (auto& byte : key) byte = static_cast<std::byte>(random.below(256));
  std::vector<std::byte> header(32), plain(9000), sealed(9000), other(9000), back(9000);
  for (auto& byte : plain) byte = static_cast<std::byte>(random.below(256));
  const auto best = Gcm::create(key, true),
             reference = Gcm::create(key, true, Gcm::Engine::Reference);
  const auto opener = Gcm::create(key, false);
  REQUIRE((best && reference && opener));
  for (std::uint64_t number = 0; number < 300; ++number) {
    const std::size_t size = number < 150 ? number : random.below(plain.size());
    std::byte tags[2][16];
    REQUIRE(best->begin(7, number, header.data(), header.size()));
    for (std::size_t at = 0; at < size;) {
      const std::size_t piece = std::min<std::size_t>(size - at, 1 + random.below(size));
      REQUIRE(best->add(sealed.data() + at, plain.data() + at, piece));
      at += piece;
    }
    REQUIRE(best->seal(tags[0]));
    REQUIRE(reference->begin(7, number, header.data(), header.size()));
    REQUIRE(reference->add(other.data(), plain.data(), size));
    REQUIRE(reference->seal(tags[1]));
    REQUIRE(std::memcmp(sealed.data(), other.data(), size) == 0);
    REQUIRE(std::memcmp(tags[0], tags[1], 16) == 0);
    for (const bool damaged : {false, true}) {
      if (damaged) tags[0][random.below(16)] ^= std::byte{1} << random.below(8);
      REQUIRE(opener->begin(7, number, header.data(), header.size()));
      REQUIRE(opener->add(back.data(), sealed.data(), size));
      REQUIRE(opener->verify(tags[0]) == !damaged);
    }
    REQUIRE(std::memcmp(back.data(), plain.data(), size) == 0);
  }
}

TEST_CASE("derived keys depend on the secret and on the label") {
  const auto secret = noise(32, 2), other = noise(32, 3);
  const auto up = noise(4, 4), down = noise(4, 5);
  AesKey a{}, b{}, c{}, again{};
  REQUIRE(derive_key(secret, up, a));
  REQUIRE(derive_key(secret, down, b));
  REQUIRE(derive_key(other, up, c));
  REQUIRE(derive_key(secret, up, again));
  CHECK(a == again);
  CHECK(a != b);
  CHECK(a != c);
}

TEST_CASE("records of every type survive the wire") {
  std::vector<std::byte> buffer(4096);
  const auto payload = noise(100, 6);
  Record open;
  open.type = RecordType::Open;
  open.size = 100;
  open.message = message_number(77, 5);
  open.offset = 64;
  open.length = 164;
  open.destination = {9, 10, 164, 11, Key{12, 13}};
  Record ack;
  ack.type = RecordType::Ack;
  ack.aux = 99;
  ack.message = 1 << 20;
  ack.cumulative = 5;
  ack.largest = 300;
  ack.bits = {1, 2, 3, 4};
  Record refuse;
  refuse.type = RecordType::Refuse;
  refuse.aux = 623;
  refuse.message = 8;
  refuse.detail = ~std::uint64_t{0};

  std::size_t at = encode_record(open, buffer.data());
  std::memcpy(buffer.data() + at, payload.data(), 100);
  at += padded(100);
  at += encode_record(ack, buffer.data() + at);
  at += encode_record(refuse, buffer.data() + at);
  std::span<const std::byte> body{buffer.data(), at};
  Record got;
  REQUIRE(next_record(body, got) == Parsed::Record);
  CHECK(got.type == RecordType::Open);
  CHECK(got.message == open.message);
  CHECK(got.destination.key == open.destination.key);
  CHECK(got.destination.length == 164);
  CHECK(std::memcmp(got.payload, payload.data(), 100) == 0);
  REQUIRE(next_record(body, got) == Parsed::Record);
  CHECK(got.bits == ack.bits);
  CHECK(got.largest == 300);
  REQUIRE(next_record(body, got) == Parsed::Record);
  CHECK(got.detail == refuse.detail);
  CHECK(next_record(body, got) == Parsed::End);
}

TEST_CASE("a record whose sizes lie is malformed") {
  std::vector<std::byte> buffer(256);
  const auto parses = [&](const Record& record, std::size_t size) {
    encode_record(record, buffer.data());
    std::span<const std::byte> body{buffer.data(), size};
    Record got;
    return next_record(body, got) == Parsed::Record;
  };
  Record data;
  data.type = RecordType::Data;
  data.size = 64;
  data.length = 64;
  CHECK(parses(data, 96));
  CHECK_FALSE(parses(data, 95));  // the payload is cut
  CHECK_FALSE(parses(data, 31));  // its head is
  data.offset = 1;
  CHECK_FALSE(parses(data, 96));  // beyond the message's end
  data.offset = ~std::uint64_t{0};
  CHECK_FALSE(parses(data, 96));  // the sum would wrap
  data.offset = 0;
  data.length = kU63;
  CHECK_FALSE(parses(data, 96));
  data.length = 64;
  data.type = static_cast<RecordType>(8);
  CHECK_FALSE(parses(data, 96));
  Record ping;
  ping.size = 16;
  CHECK_FALSE(parses(ping, 96));
  Record open;
  open.type = RecordType::Open;
  open.destination.offset = kU63;
  CHECK_FALSE(parses(open, 96));
}

TEST_CASE("the packet window finds duplicates, and follows a set that remembers everything") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Random random(seed);
    PacketWindow window;
    std::set<std::uint64_t> seen;
    std::uint64_t top = 0, floor = 0;
    for (int i = 0; i < 3000; ++i) {
      top += random.below(seed % 4 == 0 ? 600 : 3);
      const std::uint64_t number = top - std::min(top, random.below(400));
      const auto verdict = window.check(number);
      const bool old = window.any() && window.largest() >= number + kPacketSpan;
      if (old) {
        REQUIRE(verdict == PacketWindow::Verdict::TooOld);
        continue;
      }
      const bool known = seen.count(number) != 0;
      REQUIRE((verdict == PacketWindow::Verdict::Duplicate) == known);
      if (known) continue;
      window.mark(number);
      seen.insert(number);
      if (random.chance(0.1)) {
        floor = std::max(floor, top - std::min(top, random.below(500)));
        floor = std::min(floor, window.largest());
        window.raise_floor(floor);
      }
      REQUIRE(window.largest() == *seen.rbegin());
      const auto bits = window.recent();
      for (std::uint64_t b = 0; b < kAckBits; ++b) {
        const bool set = (bits[b / 64] >> (b % 64) & 1) != 0;
        const std::uint64_t back = kAckBits - 1 - b;
        const bool expected = back <= window.largest() && seen.count(window.largest() - back) != 0;
        REQUIRE(set == expected);
      }
      for (std::uint64_t n = floor; n < window.cumulative() && n + kPacketSpan > window.largest();
           ++n) {
        REQUIRE(seen.count(n) != 0);
      }
    }
  }
}

TEST_CASE("the chunk window takes chunks in any order and knows when it is complete") {
  for (const std::uint64_t chunks : {1ull, 2ull, 63ull, 64ull, 65ull, 1000ull, 20000ull}) {
    Random random(chunks);
    ChunkWindow window;
    window.reset(chunks);
    std::vector<bool> seen(chunks);
    std::uint64_t count = 0;
    while (!window.complete()) {
      std::uint64_t chunk = window.base() + random.below(std::min<std::uint64_t>(chunks, 700));
      if (random.chance(0.3)) chunk = window.base();
      if (!window.covers(chunk)) continue;
      REQUIRE(window.test(chunk) == seen[chunk]);
      if (seen[chunk]) continue;
      window.set(chunk);
      seen[chunk] = true;
      ++count;
    }
    CHECK(count == chunks);
    CHECK_FALSE(window.covers(chunks));
  }
}
