#include "genie/tcp_frame.h"

#include <cstring>
#include <string_view>

namespace genie {

using datagram::crc32c;
using datagram::derive_key;
using datagram::Gcm;

namespace {

constexpr std::uint16_t kMagic = 'G' | 'N' << 8;
constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kPlain = kPlainBytes;
constexpr int kKeyFrames = 16;  // a key serves 2^16 frames

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

// -- keys -------------------------------------------------------------------------------------

bool StreamKey::start(std::span<const std::byte> secret, bool encrypts) {
  encrypts_ = encrypts;
  if (secret.empty()) return true;
  if (!derive_key(secret, bytes_of("genie tcp stream 1"), key_)) return false;
  gcm_ = Gcm::create(key_, encrypts);
  return gcm_ != nullptr;
}

Gcm* StreamKey::at(std::uint64_t sequence) {
  if (sequence >> kKeyFrames != generation_) {
    datagram::AesKey next{};
    if (!derive_key(key_, bytes_of("genie tcp stream 1 next"), next)) return nullptr;
    auto gcm = Gcm::create(next, encrypts_);
    if (gcm == nullptr) return nullptr;
    key_ = next;
    gcm_ = std::move(gcm);
    ++generation_;
  }
  return gcm_.get();
}

// -- writing ----------------------------------------------------------------------------------

std::size_t FrameWriter::write(std::byte* out, const Header& header, const Destination& dst,
                               const std::byte* payload) {
  const std::uint64_t sequence = sequence_++;
  store(out, kMagic);
  store(out + 2, kVersion);
  store(out + 3, static_cast<std::uint8_t>(header.kind));
  store(out + 4, header.payload);
  store(out + 8, sequence);
  store(out + 16, header.message);
  store(out + 24, header.offset);
  store(out + 32, header.length);
  store(out + 40, header.credit);
  std::size_t size = kFrameBase;
  if (has_destination(header.kind)) {
    std::memcpy(out + size, &dst, kDestinationBytes);
    size += kDestinationBytes;
  }
  if (!sealed()) {
    store(out + size, crc32c(0, payload, header.payload));
    store(out + size + 4, crc32c(0, out, size + 4));
    store(out + size + 8, std::uint64_t{0});
    return size + kFrameTrailer;
  }
  Gcm* gcm = key_.at(sequence);
  if (gcm == nullptr || !gcm->begin(0, 2 * sequence, out, kPlain) ||
      !gcm->add(out + kPlain, out + kPlain, size - kPlain) || !gcm->seal(out + size)) {
    return 0;
  }
  size += kFrameTrailer;
  if (header.payload == 0) return size;
  if (!gcm->begin(0, 2 * sequence + 1, out, kPlain) ||
      !gcm->add(out + size, payload, header.payload) || !gcm->seal(out + size + header.payload)) {
    return 0;
  }
  return size + header.payload + kFrameTrailer;
}

// -- reading ----------------------------------------------------------------------------------

std::size_t FrameReader::announced(const std::byte* begin) {
  if (load<std::uint16_t>(begin) != kMagic || load<std::uint8_t>(begin + 2) != kVersion) return 0;
  const auto kind = load<std::uint8_t>(begin + 3);
  if (kind < 1 || kind > static_cast<std::uint8_t>(Kind::Put)) return 0;
  return header_bytes(static_cast<Kind>(kind));
}

Verdict FrameReader::read(const std::byte* bytes, Header& header, Destination& dst) {
  std::array<std::byte, kMaxHeader> plain{};
  const std::size_t size = announced(bytes) - kFrameTrailer;
  const std::uint64_t sequence = sequence_++;
  std::memcpy(plain.data(), bytes, size);
  std::memcpy(plain_.data(), bytes, kPlain);
  if (sealed()) {
    Gcm* gcm = key_.at(sequence);
    if (gcm == nullptr || !gcm->begin(0, 2 * sequence, bytes, kPlain) ||
        !gcm->add(plain.data() + kPlain, bytes + kPlain, size - kPlain) ||
        !gcm->verify(bytes + size)) {
      return violation("a frame header whose tag does not verify");
    }
  } else {
    if (load<std::uint32_t>(bytes + size + 4) != crc32c(0, bytes, size + 4) ||
        load<std::uint64_t>(bytes + size + 8) != 0) {
      return violation("a frame header whose sum does not fit");
    }
    expected_ = load<std::uint32_t>(bytes + size);
  }
  if (load<std::uint64_t>(plain.data() + 8) != sequence) {
    return violation("a frame out of sequence");
  }
  header.kind = static_cast<Kind>(load<std::uint8_t>(plain.data() + 3));
  header.payload = load<std::uint32_t>(plain.data() + 4);
  header.message = load<std::uint64_t>(plain.data() + 16);
  header.offset = load<std::uint64_t>(plain.data() + 24);
  header.length = load<std::uint64_t>(plain.data() + 32);
  header.credit = load<std::uint64_t>(plain.data() + 40);
  if (has_destination(header.kind)) {
    std::memcpy(&dst, plain.data() + kFrameBase, kDestinationBytes);
  }
  return {};
}

bool FrameReader::begin() {
  sum_ = 0;
  if (!sealed()) return true;
  // The payload shares its header's first bytes, which that header has authenticated; its nonce
  // binds it to the header's place in the stream.
  const std::uint64_t sequence = sequence_ - 1;
  Gcm* gcm = key_.at(sequence);
  return gcm != nullptr && gcm->begin(0, 2 * sequence + 1, plain_.data(), kPlain);
}

bool FrameReader::add(std::byte* to, const std::byte* from, std::size_t count) {
  if (sealed()) return key_.at(sequence_ - 1)->add(to, from, count);
  sum_ = crc32c(sum_, to, count);
  return true;
}

bool FrameReader::finish(const std::byte* tag) {
  if (sealed()) return key_.at(sequence_ - 1)->verify(tag);
  return sum_ == expected_;
}

}  // namespace genie
