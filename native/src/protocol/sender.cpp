#include "genie/sender.h"

#include <algorithm>

namespace genie::datagram {

Sender::Sender(std::size_t chunk, std::size_t queue)
    : chunk_(chunk), limit_(queue), slots_(kSlots) {
  for (std::uint16_t i = 0; i < kSlots; ++i) free_.push_back(i);
}

// -- orders ---------------------------------------------------------------------------------

Code Sender::post(const Order& order) {
  const Destination& dst = order.dst;
  if (dst.arena >= kU63 || dst.epoch >= kU63 || dst.length >= kU63 || dst.offset >= kU63 ||
      dst.offset + dst.length >= kU63 || order.priority < 0 || order.priority >= kPriorities ||
      (order.source == nullptr && dst.length != 0)) {
    return Code::BadHandle;
  }
  if (known_.find(order.op) != nullptr) return Code::BadOption;
  if (known_.size() + dropped_ >= limit_ + kSweep || known_.size() >= limit_) {
    return Code::QueueFull;
  }
  known_.insert(order.op, kWaiting);
  lines_[static_cast<std::size_t>(order.priority)].waiting.push_back(order);
  return Code::Ok;
}

bool Sender::cancel(std::uint64_t op) {
  const std::uint32_t* where = known_.find(op);
  if (where == nullptr) return false;
  const std::uint32_t slot = *where;
  known_.erase(op);
  if (slot == kWaiting) {
    if (++dropped_ >= kSweep) {
      dropped_ = 0;
      for (Line& line : lines_) {
        std::erase_if(line.waiting, [&](const Order& o) { return known_.find(o.op) == nullptr; });
      }
    }
    return true;
  }
  Outgoing& out = slots_[slot];
  unlink(out);
  out.state = State::Cancelling;
  ++cancelling_;
  cancels_.push_back(number_of(out));
  return true;
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> Sender::unfinished() const {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
  found.reserve(known_.size());
  known_.each([&](std::uint64_t op, std::uint32_t slot) {
    found.emplace_back(op, slot == kWaiting ? 0 : number_of(slots_[slot]));
  });
  return found;
}

void Sender::fail_all(Code code) {
  known_.each([&](std::uint64_t op, std::uint32_t) {
    events_.push_back({EventType::Failed, static_cast<std::uint16_t>(code), op, 0, {}});
  });
  known_.clear();
  for (Outgoing& out : slots_) {
    if (out.state == State::Free) continue;
    unlink(out);
    release(out);
  }
  for (Line& line : lines_) line.waiting.clear();
  dropped_ = cancelling_ = 0;
  cancels_.clear();
  progressed_.clear();
}

// -- lines ----------------------------------------------------------------------------------

Sender::Outgoing* Sender::find(std::uint64_t message) {
  Outgoing& out = slots_[slot_of(message)];
  return out.state != State::Free && out.generation == generation_of(message) ? &out : nullptr;
}

std::uint16_t Sender::index_of(const Outgoing& out) const {
  return static_cast<std::uint16_t>(&out - slots_.data());
}

std::uint64_t Sender::number_of(const Outgoing& out) const {
  return message_number(out.generation, index_of(out));
}

std::size_t Sender::size_of(const Outgoing& out, std::uint64_t chunk) const {
  return static_cast<std::size_t>(
      std::min<std::uint64_t>(chunk_, out.order.dst.length - chunk * chunk_));
}

bool Sender::sendable(const Outgoing& out) const {
  return out.resend_at < out.resend.size() || (out.next < out.chunks && out.acked.covers(out.next));
}

void Sender::enqueue(Outgoing& out, bool front) {
  if (out.queued) return;
  Line& line = lines_[static_cast<std::size_t>(out.order.priority)];
  const std::uint16_t self = index_of(out);
  out.queued = true;
  if (line.head == kNone) {
    line.head = line.tail = self;
    out.after = kNone;
  } else if (front) {
    out.after = line.head;
    line.head = self;
  } else {
    slots_[line.tail].after = self;
    line.tail = self;
    out.after = kNone;
  }
}

void Sender::dequeue_head(Line& line) {
  Outgoing& out = slots_[line.head];
  line.head = out.after;
  if (line.head == kNone) line.tail = kNone;
  out.queued = false;
}

// Out of its line, and its place among the active goes to another.
void Sender::unlink(Outgoing& out) {
  Line& line = lines_[static_cast<std::size_t>(out.order.priority)];
  if (out.next < out.chunks) --line.active;
  out.next = out.chunks;
  out.resend.clear();
  out.resend_at = 0;
  if (!out.queued) return;
  const std::uint16_t self = index_of(out);
  if (line.head == self) {
    dequeue_head(line);
    return;
  }
  std::uint16_t before = line.head;
  while (slots_[before].after != self) before = slots_[before].after;
  slots_[before].after = out.after;
  if (line.tail == self) line.tail = before;
  out.queued = false;
}

void Sender::release(Outgoing& out) {
  out.state = State::Free;
  ++out.generation;
  out.acked.release();
  out.resend.clear();
  if (out.resend.capacity() > 256) std::vector<std::uint64_t>().swap(out.resend);
  out.resend_at = 0;
  out.order.source = nullptr;
  free_.push_back(index_of(out));
}

// A cancelled message may still be writing its destination: another one for the same memory
// would be refused as a second writer until the peer has confirmed the cancellation.
bool Sender::held_by_cancel(const Order& order) const {
  if (cancelling_ == 0) return false;
  return std::any_of(slots_.begin(), slots_.end(), [&](const Outgoing& out) {
    return out.state == State::Cancelling && out.order.dst.key == order.dst.key;
  });
}

bool Sender::admissible(std::size_t priority) const {
  const Line& line = lines_[priority];
  const std::size_t reserve = priority >= static_cast<std::size_t>(kWeights) ? kReserve : 0;
  return !line.waiting.empty() && line.active < kActive && free_.size() > reserve &&
         !held_by_cancel(line.waiting.front());
}

bool Sender::ready(bool bulk) const {
  const std::size_t weights = static_cast<std::size_t>(kWeights);
  for (std::size_t priority = bulk ? weights : 0; priority < (bulk ? lines_.size() : weights);
       ++priority) {
    if (lines_[priority].head != kNone || admissible(priority)) return true;
  }
  return false;
}

void Sender::admit(std::size_t priority) {
  Line& line = lines_[priority];
  while (!line.waiting.empty()) {
    const Order& order = line.waiting.front();
    std::uint32_t* where = known_.find(order.op);
    if (where == nullptr) {
      line.waiting.pop_front();
      if (dropped_ > 0) --dropped_;
      continue;
    }
    if (!admissible(priority)) return;
    const std::uint16_t slot = free_.front();
    free_.pop_front();
    *where = slot;
    Outgoing& out = slots_[slot];
    out.order = order;
    // An empty message is one empty chunk: it still has to be asked for and answered.
    out.chunks = std::max<std::uint64_t>(1, (order.dst.length + chunk_ - 1) / chunk_);
    out.next = out.verified = 0;
    out.acked.reset(out.chunks);
    out.state = State::Sending;
    out.opened = out.progress = false;
    ++line.active;
    line.waiting.pop_front();
    enqueue(out, false);
  }
}

// -- sending --------------------------------------------------------------------------------

void Sender::add_control(Plan& plan) {
  std::size_t done = 0;
  for (; done < cancels_.size() && plan.fits(RecordType::Cancel); ++done) {
    Record record;
    record.type = RecordType::Cancel;
    record.message = cancels_[done];
    plan.add(record, Ref{Ref::Kind::Cancel, cancels_[done], 0});
  }
  cancels_.erase(cancels_.begin(), cancels_.begin() + static_cast<std::ptrdiff_t>(done));
}

bool Sender::add_next(Plan& plan, Outgoing& out) {
  while (out.resend_at < out.resend.size() && out.acked.test(out.resend[out.resend_at])) {
    ++out.resend_at;
  }
  const bool again = out.resend_at < out.resend.size();
  if (!again) {
    out.resend.clear();
    out.resend_at = 0;
    if (!sendable(out)) return true;
  }
  const std::uint64_t chunk = again ? out.resend[out.resend_at] : out.next;
  Record record;
  record.type = out.opened ? RecordType::Data : RecordType::Open;
  const std::size_t size = size_of(out, chunk);
  if (!plan.fits(record.type, size)) return false;
  record.size = static_cast<std::uint16_t>(size);
  record.message = number_of(out);
  record.offset = chunk * chunk_;
  record.length = out.order.dst.length;
  record.destination = out.order.dst;
  record.payload = size == 0 ? nullptr : out.order.source + record.offset;
  plan.add(record, Ref{Ref::Kind::Chunk, record.message, chunk});
  if (again) {
    ++out.resend_at;
  } else if (++out.next == out.chunks) {
    --lines_[static_cast<std::size_t>(out.order.priority)].active;
  }
  return true;
}

void Sender::add_data(Plan& plan, std::int64_t budget, std::int64_t bulk_budget) {
  for (std::size_t priority = 0; priority < lines_.size(); ++priority) {
    const std::int64_t limit =
        priority >= static_cast<std::size_t>(kWeights) ? bulk_budget : budget;
    Line& line = lines_[priority];
    for (;;) {
      if (line.head == kNone || line.active < kActive) admit(priority);
      if (line.head == kNone) break;
      if (static_cast<std::int64_t>(plan.body()) >= limit) return;
      Outgoing& out = slots_[line.head];
      // Strict order: what does not fit here waits for the next datagram and lets nobody pass.
      if (!add_next(plan, out)) return;
      dequeue_head(line);
      if (sendable(out)) enqueue(out, false);
    }
  }
}

void Sender::resend(Outgoing& out, std::uint64_t chunk) {
  out.resend.push_back(chunk);
  enqueue(out, true);
}

bool Sender::repeat(const Ref& ref) {
  Outgoing* out = find(ref.message);
  if (out == nullptr) return false;
  if (ref.kind == Ref::Kind::Cancel && out->state == State::Cancelling) {
    if (std::find(cancels_.begin(), cancels_.end(), ref.message) == cancels_.end()) {
      cancels_.push_back(ref.message);
    }
    return true;
  }
  if (ref.kind != Ref::Kind::Chunk || out->state != State::Sending || out->acked.test(ref.chunk)) {
    return false;
  }
  resend(*out, ref.chunk);
  return true;
}

// -- answers --------------------------------------------------------------------------------

void Sender::on_acked(const Ref& ref) {
  Outgoing* out = find(ref.message);
  if (out == nullptr) return;
  if (ref.kind == Ref::Kind::Cancel && out->state == State::Cancelling) {
    std::erase(cancels_, ref.message);
    --cancelling_;
    release(*out);
    return;
  }
  if (ref.kind != Ref::Kind::Chunk || out->state != State::Sending || out->acked.test(ref.chunk)) {
    return;
  }
  out->acked.set(ref.chunk);
  out->verified += size_of(*out, ref.chunk);
  out->opened = true;
  if (out->acked.complete()) {
    unlink(*out);
    known_.erase(out->order.op);
    events_.push_back({EventType::Completed, 0, out->order.op, 0, {}});
    release(*out);
    return;
  }
  if (!out->progress) {
    out->progress = true;
    progressed_.push_back(index_of(*out));
  }
  if (!out->queued && sendable(*out)) enqueue(*out, false);
}

void Sender::on_lost(const Ref& ref) { repeat(ref); }

bool Sender::on_refuse(std::uint64_t message, std::uint16_t code, std::uint64_t detail) {
  const Outgoing& slot = slots_[slot_of(message)];
  if (generation_of(message) > slot.generation ||
      (generation_of(message) == slot.generation && slot.state == State::Free)) {
    return false;  // never sent
  }
  Outgoing* out = find(message);
  if (out == nullptr || out->state != State::Sending) return true;
  unlink(*out);
  known_.erase(out->order.op);
  events_.push_back({EventType::Failed, code, out->order.op, detail, {}});
  release(*out);
  return true;
}

void Sender::take_events(std::vector<Event>& out) {
  for (const std::uint16_t index : progressed_) {
    Outgoing& slot = slots_[index];
    // The flag is reset with the slot: what was released, or taken over, has no progress here.
    if (!slot.progress || slot.state != State::Sending) continue;
    slot.progress = false;
    out.push_back({EventType::Progressed, 0, slot.order.op, slot.verified, {}});
  }
  progressed_.clear();
  out.insert(out.end(), events_.begin(), events_.end());
  events_.clear();
}

}  // namespace genie::datagram
