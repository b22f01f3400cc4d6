// The TCP wire under streams of bytes that no correct peer sends: nothing wrong is ever accepted.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "genie/tcp.h"
#include "pairs.h"

namespace genie::test {
namespace {

constexpr Terms kSmallTerms{64 << 10, 4 << 10, 30'000'000'000};
constexpr std::size_t kSizes[] = {1, 64, 3000, 9000, 0, 20'000};

// A link and its wire without an endpoint; the test holds the other end of the socket.
class Node {
 public:
  explicit Node(const std::vector<std::byte>& send, const std::vector<std::byte>& receive)
      : link_(events_, counters_, kSmallTerms) {
    const auto [near, far] = unix_sockets();
    far_ = far;
    auto stream = std::make_unique<TcpStream>(near, kSmallTerms.chunk);
    REQUIRE(stream->start(send, receive));
    wire_ = std::make_unique<TcpWire>(std::move(stream));
    link_.connect(kSmallTerms);
  }
  ~Node() { ::close(far_); }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Link& link() { return link_; }

  // Has the wire take `bytes`; false once it has ended the connection.
  bool feed(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(far_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) bytes = bytes.subspan(static_cast<std::size_t>(sent));
      if (!take()) return false;
    }
    return true;
  }
  bool take() {
    Turn turn;
    do {
      turn = Turn{};
      wire_->receive(link_, turn);
    } while (!turn.ended() && !link_.peer_closed() && (turn.received || turn.more));
    return !turn.ended();
  }
  // The peer's end of the stream; false: the wire called it one.
  bool finish() {
    ::shutdown(far_, SHUT_WR);
    return take();
  }
  // What the wire sends now.
  std::vector<std::byte> drain() {
    std::vector<std::byte> all;
    for (;;) {
      Turn turn;
      wire_->send(link_, turn, Wanted::All);
      REQUIRE_FALSE(turn.ended());
      const std::size_t before = all.size();
      std::byte piece[16384];
      for (ssize_t got = 0; (got = ::recv(far_, piece, sizeof piece, MSG_DONTWAIT)) > 0;) {
        all.insert(all.end(), piece, piece + got);
      }
      if (all.size() == before && !turn.sent) return all;
    }
  }
  std::size_t count(EventType type) {
    events_.take(seen_);
    return static_cast<std::size_t>(std::count_if(
        seen_.begin(), seen_.end(), [type](const Event& e) { return e.type == type; }));
  }
  const std::vector<Event>& seen() const { return seen_; }

 private:
  EventQueue events_;
  Counters counters_;
  Link link_;
  std::unique_ptr<TcpWire> wire_;
  int far_ = -1;
  std::vector<Event> seen_;
};

// The same transfers again and again, from one side to the other.
struct Scene {
  std::vector<std::vector<std::byte>> sources;
  std::vector<std::vector<std::byte>> buffers;
  std::vector<Region> regions;

  Scene() {
    for (const std::size_t size : kSizes) {
      const std::uint64_t number = sources.size() + 1;
      sources.push_back(noise(size, number));
      buffers.emplace_back(size);
      regions.push_back(region_of(buffers.back(), number));
    }
  }
  void expect(Node& node) {
    for (auto& buffer : buffers) std::fill(buffer.begin(), buffer.end(), std::byte{0});
    for (const Region& region : regions) node.link().add(region);
  }
  void post(Node& node) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      node.link().post(order_to(i + 1, sources[i], regions[i]));
    }
  }
};

// Changes a stream in one of the ways that a network or an attacker can.
std::vector<std::byte> mutated(const std::vector<std::byte>& good, std::mt19937_64& random) {
  auto bytes = good;
  const auto at = [&](std::size_t end) { return static_cast<std::ptrdiff_t>(random() % end); };
  const std::ptrdiff_t where = at(bytes.size());
  const std::ptrdiff_t most =
      std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(bytes.size()) - where, 1 + at(200));
  switch (random() % 7) {
    case 0:  // bits flip
      for (std::uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
        bytes[static_cast<std::size_t>(at(bytes.size()))] ^=
            static_cast<std::byte>(1u << random() % 8);
      }
      break;
    case 1:  // the end is missing
      bytes.resize(static_cast<std::size_t>(where));
      break;
    case 2:  // some bytes are missing
      bytes.erase(bytes.begin() + where, bytes.begin() + where + most);
      break;
    case 3: {  // some come twice
      const std::vector<std::byte> twice(bytes.begin() + where, bytes.begin() + where + most);
      bytes.insert(bytes.begin() + where, twice.begin(), twice.end());
      break;
    }
    case 4: {  // strange ones come between
      const auto strange = noise(static_cast<std::size_t>(most), random());
      bytes.insert(bytes.begin() + where, strange.begin(), strange.end());
      break;
    }
    case 5:  // a value that is as large as can be
      std::fill_n(bytes.begin() + where, std::min<std::ptrdiff_t>(most, 8), std::byte{0xff});
      break;
    default: {  // two parts change places
      const std::ptrdiff_t other = at(bytes.size() - static_cast<std::size_t>(most) + 1);
      std::vector<std::byte> kept(bytes.begin() + where, bytes.begin() + where + most);
      std::copy_n(good.begin() + other, most, bytes.begin() + where);
      std::copy_n(kept.begin(), most, bytes.begin() + other);
    }
  }
  return bytes;
}

// Feeds `bytes` in pieces, so that frames are cut in all places; then the end of the stream.
bool feed_in_pieces(Node& node, const std::vector<std::byte>& bytes, std::mt19937_64& random) {
  std::span<const std::byte> rest(bytes);
  while (!rest.empty()) {
    const std::size_t most = 1 + random() % 12'000;
    const std::size_t size = std::min<std::size_t>(rest.size(), most);
    if (!node.feed(rest.first(size))) return false;
    rest = rest.subspan(size);
  }
  return node.finish();
}

// How many events of `type` each beginning of a good stream may cause: index by its length.
std::vector<std::size_t> allowed(Node& node, const std::vector<std::byte>& good, EventType type) {
  std::vector<std::size_t> counts{0};
  for (const std::byte& byte : good) {
    REQUIRE(node.feed({&byte, 1}));
    counts.push_back(node.count(type));
  }
  return counts;
}

std::size_t common(const std::vector<std::byte>& good, const std::vector<std::byte>& bad) {
  const std::size_t most = std::min(good.size(), bad.size());
  const auto end = good.begin() + static_cast<std::ptrdiff_t>(most);
  return static_cast<std::size_t>(std::mismatch(good.begin(), end, bad.begin()).first -
                                  good.begin());
}

TEST_CASE("mutated streams deliver nothing wrong, and confirm nothing that did not happen") {
  const char* wanted = std::getenv("GENIE_MUTATIONS");
  const int rounds = wanted != nullptr ? std::atoi(wanted) : 30'000;
  for (const bool sealed : {false, true}) {
    CAPTURE(sealed);
    const auto one = sealed ? noise(32, 1) : std::vector<std::byte>{};
    const auto two = sealed ? noise(32, 2) : std::vector<std::byte>{};
    Scene scene;
    Node poster(one, two);
    Node receiver(two, one);
    scene.expect(receiver);
    scene.post(poster);
    const auto sent = poster.drain();
    REQUIRE(receiver.feed(sent));
    const auto answers = receiver.drain();
    REQUIRE(poster.feed(answers));
    REQUIRE(receiver.count(EventType::Arrived) == std::size(kSizes));
    REQUIRE(poster.count(EventType::Completed) == std::size(kSizes));

    // A stream may cause what its undamaged beginning causes, and no more.
    Node slow_receiver(two, one);
    scene.expect(slow_receiver);
    const auto arrivals = allowed(slow_receiver, sent, EventType::Arrived);
    Node slow_poster(one, two);
    scene.post(slow_poster);
    slow_poster.drain();
    const auto completions = allowed(slow_poster, answers, EventType::Completed);
    REQUIRE(arrivals.back() == std::size(kSizes));
    REQUIRE(completions.back() == std::size(kSizes));

    std::mt19937_64 random(11);
    std::size_t wrong = 0;
    std::size_t beyond = 0;
    std::size_t survived = 0;
    for (int round = 0; round < rounds; ++round) {
      const auto bad = mutated(sent, random);
      if (bad == sent) continue;
      Node victim(two, one);
      scene.expect(victim);
      survived += feed_in_pieces(victim, bad, random);
      // A damaged payload ends its own transfer only; a damaged header all that follows.
      const std::size_t harmless = arrivals[common(sent, bad)];
      beyond += victim.count(EventType::Arrived) == arrivals.back() && harmless < arrivals.back();
      for (const Event& event : victim.seen()) {
        if (event.type != EventType::Arrived) continue;
        const auto i = static_cast<std::size_t>(event.key.low - 1);
        wrong += scene.buffers[i] != scene.sources[i];
      }
    }
    CHECK(wrong == 0);
    CHECK(beyond == 0);
    CHECK(survived == 0);  // at the latest, the stream's end was no farewell

    for (int round = 0; round < rounds; ++round) {
      const auto bad = mutated(answers, random);
      if (bad == answers) continue;
      Node victim(one, two);
      scene.post(victim);
      victim.drain();
      survived += feed_in_pieces(victim, bad, random);
      beyond += victim.count(EventType::Completed) > completions[common(answers, bad)];
    }
    CHECK(beyond == 0);
    CHECK(survived == 0);
  }
}

}  // namespace
}  // namespace genie::test
