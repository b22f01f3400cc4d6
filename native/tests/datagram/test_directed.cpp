// Rules of the protocol that random runs rarely need, each alone.
#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "genie/receiver.h"
#include "genie/sender.h"

using namespace genie;
using namespace genie::datagram;

namespace {

constexpr std::size_t kChunk = 1024;

Region region_of(std::vector<std::byte>& bytes, std::uint64_t key) {
  Region region;
  region.base = bytes.data();
  region.arena = 1;
  region.length = bytes.size();
  region.epoch = 1;
  region.key = Key{key, 1};
  region.writable = true;
  return region;
}

Order order_of(std::uint64_t op, const std::vector<std::byte>& source, std::uint64_t key) {
  Order order;
  order.op = op;
  order.source = source.data();
  order.dst = {1, 0, source.size(), 1, Key{key, 1}};
  return order;
}

// A piece of a message of two chunks, as it comes out of an authentic datagram.
Record piece(std::uint64_t message, std::uint64_t chunk, const std::vector<std::byte>& payload) {
  Record record;
  record.type = chunk == 0 ? RecordType::Open : RecordType::Data;
  record.size = kChunk;
  record.message = message;
  record.offset = chunk * kChunk;
  record.length = 2 * kChunk;
  record.destination = {1, 0, 2 * kChunk, 1, Key{1, 1}};
  record.payload = payload.data();
  return record;
}

// The records of the next datagram and what they were about.
struct Sent {
  explicit Sent(Sender& sender) {
    plan.begin(1472);
    sender.add_control(plan);
    sender.add_data(plan, 1 << 20, 1 << 20);
  }
  std::size_t count() const { return plan.refs().size(); }
  Ref ref(std::size_t i) const { return plan.refs()[i]; }
  Plan plan;
};

// What the receiver acknowledges as "all below have come".
std::uint64_t acknowledged(Receiver& receiver) {
  Plan plan;
  plan.begin(1472);
  REQUIRE(receiver.add_answer(plan, 0, 1 << 20));
  const Plan::Piece& last = plan.pieces().back();
  Record record;
  REQUIRE(decode_record_head({last.head.data(), last.head_bytes}, record));
  REQUIRE(record.type == RecordType::Ack);
  return record.cumulative;
}

}  // namespace

TEST_CASE("what is left of an ended message writes nothing into its slot's next one") {
  std::vector<std::byte> target(2 * kChunk);
  const std::vector<std::byte> right(kChunk, std::byte{1}), stale(kChunk, std::byte{2});
  Receiver receiver(kChunk);
  REQUIRE(receiver.add(region_of(target, 1)));
  const std::uint64_t before = message_number(4, 9), now = message_number(5, 9);
  REQUIRE(receiver.on_data(piece(now, 0, right), false) == Receiver::Result::Accepted);
  CHECK(receiver.unverified_target(piece(before, 1, stale)) == nullptr);
  CHECK(receiver.on_data(piece(before, 1, stale), false) == Receiver::Result::Accepted);
  CHECK(target[kChunk] == std::byte{0});
  CHECK(receiver.landed_bytes() == kChunk);
  CHECK_FALSE(receiver.has_events());
  // Nor may a late cancellation of the old one end the new one.
  Record cancel;
  cancel.type = RecordType::Cancel;
  cancel.message = before;
  CHECK(receiver.on_cancel(cancel) == Receiver::Result::Accepted);
  REQUIRE(receiver.on_data(piece(now, 1, right), false) == Receiver::Result::Accepted);
  CHECK(receiver.has_events());
  CHECK(target[kChunk] == std::byte{1});
  CHECK(receiver.finished(now));
  CHECK_FALSE(receiver.finished(before));
  CHECK_FALSE(receiver.finished(message_number(6, 9)));
}

TEST_CASE("an acknowledgement of an ended message completes nothing of its slot's next one") {
  const std::vector<std::byte> source(kChunk);
  Sender sender(kChunk, 4096);
  REQUIRE(sender.post(order_of(1, source, 1)) == Code::Ok);
  const Ref first = Sent(sender).ref(0);
  sender.on_acked(first);
  std::vector<Event> events;
  // Slots are used in turn: this many later the first one's is taken again.
  for (std::uint64_t op = 2; op <= kSlots; ++op) {
    REQUIRE(sender.post(order_of(op, source, 1)) == Code::Ok);
    sender.on_acked(Sent(sender).ref(0));
  }
  REQUIRE(sender.post(order_of(5000, source, 1)) == Code::Ok);
  const Ref again = Sent(sender).ref(0);
  REQUIRE(slot_of(again.message) == slot_of(first.message));
  REQUIRE(again.message != first.message);
  sender.take_events(events);
  events.clear();
  sender.on_acked(first);
  CHECK(sender.on_refuse(first.message, 623, 0));
  sender.on_lost(first);
  CHECK_FALSE(sender.has_events());
  CHECK(sender.outstanding() == 1);
  CHECK(Sent(sender).count() == 0);
  sender.on_acked(again);
  CHECK(sender.outstanding() == 0);
}

TEST_CASE("a post into memory of a cancelled one waits until the peer has confirmed that") {
  const std::vector<std::byte> source(kChunk);
  Sender sender(kChunk, 64);
  REQUIRE(sender.post(order_of(1, source, 1)) == Code::Ok);
  REQUIRE(Sent(sender).count() == 1);
  REQUIRE(sender.cancel(1));
  REQUIRE(sender.post(order_of(2, source, 1)) == Code::Ok);
  const Sent cancellation(sender);
  REQUIRE(cancellation.count() == 1);  // and not the post
  REQUIRE(cancellation.ref(0).kind == Ref::Kind::Cancel);
  CHECK_FALSE(sender.ready(false));
  CHECK(sender.unfinished() == std::vector<std::pair<std::uint64_t, std::uint64_t>>{{2, 0}});
  // It is lost on the way, sent again, and only then confirmed.
  sender.on_lost(cancellation.ref(0));
  const Sent repeated(sender);
  REQUIRE(repeated.count() == 1);
  REQUIRE(repeated.ref(0).kind == Ref::Kind::Cancel);
  sender.on_acked(repeated.ref(0));
  CHECK(sender.ready(false));
  const Sent post(sender);
  REQUIRE(post.count() == 1);
  CHECK(post.ref(0).kind == Ref::Kind::Chunk);
  // Other memory does not wait.
  REQUIRE(sender.cancel(2));
  REQUIRE(sender.post(order_of(3, source, 2)) == Code::Ok);
  CHECK(Sent(sender).count() == 2);
}

TEST_CASE("acknowledgements pass over what their sender has given up, and over no more") {
  Receiver receiver(kChunk);
  datagram::Header header;
  header.flags = kEliciting;
  receiver.accepted(header, 0);
  CHECK(acknowledged(receiver) == 1);
  header.number = 100;
  header.floor_gap = 100;  // everything is still open
  receiver.accepted(header, 0);
  CHECK(acknowledged(receiver) == 1);
  header.number = 101;
  header.floor_gap = 6;  // 1 to 94 will never come
  receiver.accepted(header, 0);
  CHECK(acknowledged(receiver) == 95);
  CHECK(receiver.check(96) == PacketWindow::Verdict::Fresh);
  CHECK(receiver.check(100) == PacketWindow::Verdict::Duplicate);
  for (std::uint64_t number = 95; number < 100; ++number) {
    header.number = number;
    header.floor_gap = 0;
    receiver.accepted(header, 0);
  }
  CHECK(acknowledged(receiver) == 102);
}
