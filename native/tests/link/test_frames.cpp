// The codec of the TCP wire: no changed frame is ever accepted.
#include <doctest/doctest.h>

#include <cstdlib>
#include <random>

#include "genie/tcp_frame.h"
#include "pairs.h"

namespace genie::test {
namespace {

struct Sealed {
  std::vector<std::byte> bytes;
  Header header{};
};

Sealed make(FrameWriter& writer, std::uint64_t message, const std::vector<std::byte>& payload) {
  Sealed made;
  made.header.kind = message % 2 != 0 ? Kind::Put : Kind::Data;
  made.header.payload = static_cast<std::uint32_t>(payload.size());
  made.header.message = message;
  made.header.length = payload.size();
  const Destination dst{1, 0, payload.size(), 1, {3, 4}};
  made.bytes.resize(kMaxHeader + payload.size() + kFrameTrailer);
  std::size_t size = writer.write(made.bytes.data(), made.header, dst, payload.data());
  if (!writer.sealed()) {
    std::memcpy(made.bytes.data() + size, payload.data(), payload.size());
    size += payload.size();
  }
  made.bytes.resize(size);
  return made;
}

// Whether a whole frame verifies, as the stream would read it.
bool accepted(FrameReader& reader, std::vector<std::byte> bytes, std::vector<std::byte>& out) {
  const std::size_t head = FrameReader::announced(bytes.data());
  if (head == 0 || head > bytes.size()) return false;
  Header header;
  Destination dst;
  if (!reader.read(bytes.data(), header, dst).ok()) return false;
  if (bytes.size() != head + header.payload + reader.tag_bytes()) return false;
  out.assign(bytes.begin() + static_cast<std::ptrdiff_t>(head),
             bytes.end() - static_cast<std::ptrdiff_t>(reader.tag_bytes()));
  if (!reader.begin()) return false;
  // In two pieces, in place.
  const std::size_t half = out.size() / 2;
  if (!reader.add(out.data(), out.data(), half)) return false;
  if (!reader.add(out.data() + half, out.data() + half, out.size() - half)) return false;
  return reader.finish(bytes.data() + bytes.size() - reader.tag_bytes());
}

TEST_CASE("mutated frames are not accepted") {
  const char* wanted = std::getenv("GENIE_MUTATIONS");
  const int count = wanted != nullptr ? std::atoi(wanted) : 50'000;
  for (const bool sealed : {false, true}) {
    CAPTURE(sealed);
    const auto secret = noise(32, 1);
    const std::span<const std::byte> key =
        sealed ? std::span<const std::byte>(secret) : std::span<const std::byte>();
    std::mt19937_64 random(7);
    const auto payload = noise(96, 2);
    int slipped = 0;
    for (int round = 0; round < count; ++round) {
      FrameWriter writer;
      FrameReader reader;
      REQUIRE(writer.start(key));
      REQUIRE(reader.start(key));
      Sealed frame = make(writer, random() % 8, payload);
      const int flips = 1 + static_cast<int>(random() % 3);
      const auto before = frame.bytes;
      for (int i = 0; i < flips; ++i) {
        frame.bytes[random() % frame.bytes.size()] ^= static_cast<std::byte>(1u << random() % 8);
      }
      if (frame.bytes == before) continue;
      std::vector<std::byte> out;
      slipped += accepted(reader, frame.bytes, out);
    }
    CHECK(slipped == 0);
  }
}

TEST_CASE("frames verify in their order only, across changes of the key") {
  for (const bool sealed : {false, true}) {
    CAPTURE(sealed);
    const auto secret = noise(32, 1);
    const std::span<const std::byte> key =
        sealed ? std::span<const std::byte>(secret) : std::span<const std::byte>();
    FrameWriter writer;
    FrameReader reader;
    REQUIRE(writer.start(key));
    REQUIRE(reader.start(key));
    const auto payload = noise(32, 3);
    std::vector<std::byte> out;
    Sealed frame;
    for (std::uint64_t i = 0; i < 70'000; ++i) {
      frame = make(writer, i, payload);
      REQUIRE(accepted(reader, frame.bytes, out));
      REQUIRE(out == payload);
    }
    CHECK_FALSE(accepted(reader, frame.bytes, out));  // replayed
    make(writer, 1, payload);
    frame = make(writer, 2, payload);
    FrameReader other;
    REQUIRE(other.start(key));
    CHECK_FALSE(accepted(other, frame.bytes, out));  // of another place in the stream
  }
}

TEST_CASE("another key's frames are not accepted") {
  FrameWriter writer;
  FrameReader reader;
  REQUIRE(writer.start(noise(32, 1)));
  REQUIRE(reader.start(noise(32, 2)));
  std::vector<std::byte> out;
  CHECK_FALSE(accepted(reader, make(writer, 1, noise(8, 1)).bytes, out));
}

}  // namespace
}  // namespace genie::test
