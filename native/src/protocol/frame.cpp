#include "genie/frame.h"

namespace genie::datagram {

void encode_header(const Header& header, std::byte* out) {
  store<std::uint16_t>(out, kMagic);
  store<std::uint8_t>(out + 2, kVersion);
  store<std::uint8_t>(out + 3, header.flags);
  store<std::uint32_t>(out + 4, header.connection);
  store<std::uint64_t>(out + 8, header.number);
  store<std::uint32_t>(out + 16, header.epoch);
  store<std::uint16_t>(out + 20, header.body);
  store<std::uint16_t>(out + 22, 0);
  store<std::uint32_t>(out + 24, header.floor_gap);
  store<std::uint32_t>(out + 28, 0);
}

bool decode_header(std::span<const std::byte> datagram, Header& header) {
  if (datagram.size() < kHeaderBytes || datagram.size() > kMaxDatagram) return false;
  const std::byte* in = datagram.data();
  header.flags = load<std::uint8_t>(in + 3);
  header.connection = load<std::uint32_t>(in + 4);
  header.number = load<std::uint64_t>(in + 8);
  header.epoch = load<std::uint32_t>(in + 16);
  header.body = load<std::uint16_t>(in + 20);
  header.floor_gap = load<std::uint32_t>(in + 24);
  return load<std::uint16_t>(in) == kMagic && load<std::uint8_t>(in + 2) == kVersion &&
         (header.flags & ~(kEliciting | kSealed)) == 0 && load<std::uint16_t>(in + 22) == 0 &&
         load<std::uint32_t>(in + 28) == 0 && header.body == datagram.size() - kHeaderBytes &&
         header.floor_gap <= header.number;
}

std::size_t record_head_bytes(RecordType type) {
  switch (type) {
    case RecordType::Data:
      return kDataBytes;
    case RecordType::Open:
      return kOpenBytes;
    case RecordType::Ack:
      return kAckBytes;
    case RecordType::Refuse:
      return kRefuseBytes;
    case RecordType::Cancel:
    case RecordType::Ping:
    case RecordType::Bye:
      return kRecordBytes;
  }
  return 0;
}

std::size_t encode_record(const Record& record, std::byte* out) {
  store<std::uint8_t>(out, static_cast<std::uint8_t>(record.type));
  store<std::uint8_t>(out + 1, 0);
  store<std::uint16_t>(out + 2, record.size);
  store<std::uint32_t>(out + 4, record.aux);
  store<std::uint64_t>(out + 8, record.message);
  switch (record.type) {
    case RecordType::Open:
      store<std::uint64_t>(out + 32, record.destination.arena);
      store<std::uint64_t>(out + 40, record.destination.offset);
      store<std::uint64_t>(out + 48, record.destination.epoch);
      store<Key>(out + 56, record.destination.key);
      store<std::uint64_t>(out + 72, 0);
      [[fallthrough]];
    case RecordType::Data:
      store<std::uint64_t>(out + 16, record.offset);
      store<std::uint64_t>(out + 24, record.length);
      break;
    case RecordType::Ack:
      store<std::uint64_t>(out + 16, record.cumulative);
      store<std::uint64_t>(out + 24, record.largest);
      store(out + 32, record.bits);
      break;
    case RecordType::Refuse:
      store<std::uint64_t>(out + 16, record.detail);
      store<std::uint64_t>(out + 24, 0);
      break;
    case RecordType::Cancel:
    case RecordType::Ping:
    case RecordType::Bye:
      break;
  }
  return record_head_bytes(record.type);
}

bool decode_record_head(std::span<const std::byte> head, Record& record) {
  if (head.size() < kRecordBytes) return false;
  const std::byte* in = head.data();
  record.type = static_cast<RecordType>(load<std::uint8_t>(in));
  record.size = load<std::uint16_t>(in + 2);
  record.aux = load<std::uint32_t>(in + 4);
  record.message = load<std::uint64_t>(in + 8);
  const std::size_t need = record_head_bytes(record.type);
  if (need == 0 || head.size() < need || load<std::uint8_t>(in + 1) != 0) return false;
  switch (record.type) {
    case RecordType::Open:
      record.destination.arena = load<std::uint64_t>(in + 32);
      record.destination.offset = load<std::uint64_t>(in + 40);
      record.destination.epoch = load<std::uint64_t>(in + 48);
      record.destination.key = load<Key>(in + 56);
      if (record.destination.arena >= kU63 || record.destination.offset >= kU63 ||
          record.destination.epoch >= kU63 || load<std::uint64_t>(in + 72) != 0) {
        return false;
      }
      [[fallthrough]];
    case RecordType::Data:
      record.offset = load<std::uint64_t>(in + 16);
      record.length = load<std::uint64_t>(in + 24);
      record.destination.length = record.length;
      // Both are below 2^63 and the size is below 2^16: no sum here can wrap.
      return record.length < kU63 && record.offset <= record.length &&
             record.size <= record.length - record.offset;
    case RecordType::Ack:
      record.cumulative = load<std::uint64_t>(in + 16);
      record.largest = load<std::uint64_t>(in + 24);
      record.bits = load<std::array<std::uint64_t, kAckWords>>(in + 32);
      return record.size == 0;
    case RecordType::Refuse:
      record.detail = load<std::uint64_t>(in + 16);
      return record.size == 0 && load<std::uint64_t>(in + 24) == 0;
    case RecordType::Cancel:
    case RecordType::Ping:
    case RecordType::Bye:
      return record.size == 0;
  }
  return false;
}

Parsed next_record(std::span<const std::byte>& body, Record& record) {
  if (body.empty()) return Parsed::End;
  if (!decode_record_head(body, record)) return Parsed::Malformed;
  const std::size_t head = record_head_bytes(record.type);
  const std::size_t whole = head + padded(record.size);
  if (whole > body.size()) return Parsed::Malformed;
  record.payload = body.data() + head;
  body = body.subspan(whole);
  return Parsed::Record;
}

}  // namespace genie::datagram
