// The UCX wire: messages over UCX, whatever it runs on (RDMA, TCP, shared memory).
//
// It comes in two halves. UcxPort calls UCX and is a module of its own, loaded on demand, so that
// a machine without UCX runs everything else. UcxWire, in the core, knows the link and not UCX.
//
// A message is a sequence number, a token, and whole frames of the native codec (tcp_frame.h).
// Small ones are pushed; long ones are announced, and fetched when the receiver wants them. Both
// sides stage: the sender encrypts or sums into registered memory, the receiver decrypts or sums
// out of it. So no hardware ever writes a destination or reads a source, and a region withdrawn or
// a transfer cancelled is left alone from that moment, which no direct access could promise: a
// fetch that is on its way cannot be called back.
//
// Worker addresses cross the socket of the handshake, sealed; it then stays open, and tells
// at once when the peer's process is gone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "genie/tcp_frame.h"
#include "genie/wire.h"

namespace genie {

inline constexpr std::uint32_t kUcxAbi = 1;
inline constexpr const char* kUcxCapsule = "genie_transport._ucx.factory";

// What goes ahead of each message. UCX lets strangers send to a worker they can reach: what does
// not carry the token of this connection and direction is dropped before anything else.
struct UcxTag {
  std::array<std::byte, 16> token{};
  std::uint64_t sequence = 0;
};
static_assert(sizeof(UcxTag) == 24);

struct UcxOptions {
  bool network = false;    // over UCX's network transports; otherwise shared memory only
  bool loopback = false;   // of the network only the loopback device
  std::size_t memory = 0;  // bytes to register for staging
};

enum class UcxStatus { Done, Going, Failed };

// What UcxPort reports, from within progress() only.
class UcxSink {
 public:
  virtual void pushed(const UcxTag& tag, const std::byte* data, std::size_t size) = 0;
  // True when the message will be fetched, or dropped, by its ticket later.
  virtual bool announced(const UcxTag& tag, std::size_t size, void* ticket) = 0;
  virtual void fetched(std::uint64_t cookie, bool ok) = 0;
  virtual void sent(std::uint64_t cookie) = 0;

 protected:
  ~UcxSink() = default;
};

// One worker with at most one peer. The caller serialises all calls.
class UcxPort {
 public:
  // Ends what is under way, and frees everything.
  virtual void release() = 0;
  virtual std::span<const std::byte> address() const = 0;
  virtual std::byte* memory() = 0;
  // The address must come from the authenticated peer: UCX does not check what it parses.
  virtual bool connect(std::span<const std::byte> address, std::string& error) = 0;
  // `tag` and `data` stay until it is Done, or sent(cookie).
  virtual UcxStatus send(const UcxTag* tag, const std::byte* data, std::size_t size, bool push,
                         std::uint64_t cookie) = 0;
  virtual UcxStatus fetch(void* ticket, std::byte* to, std::size_t size, std::uint64_t cookie) = 0;
  virtual void drop(void* ticket) = 0;
  // Does a bounded amount of work; true when there was any.
  virtual bool progress(UcxSink& sink) = 0;
  // Why the connection is broken; null while it is not.
  virtual const char* failure() const = 0;
  // Begins to push out what was sent; true when it is out.
  virtual bool flushed() = 0;
  virtual int fd() const = 0;
  // True when fd() becomes readable with the next event; false when there is work already.
  virtual bool arm() = 0;
  // Breaks the connection.
  virtual void close() = 0;

 protected:
  ~UcxPort() = default;
};

struct UcxRelease {
  void operator()(UcxPort* port) const { port->release(); }
};

// The seam between the modules, in a PyCapsule.
struct UcxFactory {
  std::uint32_t abi;
  std::uint32_t size;
  // Null, and `error` says why.
  UcxPort* (*make)(const UcxOptions& options, std::string& error);
};

struct UcxSecrets {
  std::span<const std::byte> send;
  std::span<const std::byte> receive;
  bool sealed = false;  // AES-128-GCM for every frame; otherwise CRC32C
};

class UcxWire final : public Wire, private UcxSink {
 public:
  // Takes the connected socket `fd` in any case; `greeting` goes out first. Null, and `error`
  // says why, when UCX or the crypto library refuses.
  static std::unique_ptr<UcxWire> create(const UcxFactory& factory, int fd, std::string greeting,
                                         UcxOptions options, std::uint32_t chunk,
                                         const UcxSecrets& secrets, std::string& error);
  ~UcxWire() override;

  void receive(Link& link, Turn& turn) override;
  void send(Link& link, Turn& turn, Wanted wanted) override;
  bool flushed() const override { return flushed_; }
  void forget(std::uint64_t) override {}  // what is sent has been copied
  bool spins() const override { return true; }
  bool arm(Link& link) override;
  void disarm() override { armed_ = false; }
  std::size_t watch(pollfd* out) override;
  void ready(const pollfd* found, std::size_t count) override;
  void shut() override;

 private:
  static constexpr std::size_t kLong = 8;           // long messages under way, each way
  static constexpr std::size_t kShort = 64;         // pushed messages that UCX has not taken yet
  static constexpr std::size_t kShortBytes = 7936;  // what every transport pushes in one piece
  static constexpr std::uint64_t kAhead = 256;      // messages sent beyond the oldest under way
  static constexpr std::uint64_t kMaxHeld = 1024;   // of what UCX delivers out of order
  static constexpr std::size_t kMaxOffers = 64;
  static constexpr std::uint64_t kTurn = 1u << 20;  // bytes before the other direction has its turn

  struct Slot {
    UcxTag tag{};
    std::byte* data = nullptr;
    std::size_t size = 0;
  };
  struct Held {  // a message that came before its turn
    std::vector<std::byte> copy;
    Slot* slot = nullptr;
  };
  struct Offer {
    UcxTag tag;
    std::size_t size;
    void* ticket;
  };

  UcxWire(int fd, std::uint32_t chunk, bool sealed);
  static std::size_t long_bytes(std::uint32_t chunk);
  static std::size_t memory_bytes(std::uint32_t chunk);
  bool start(const UcxSecrets& secrets, std::string greeting, std::string& error);
  void lay_out();

  // the socket
  void write_socket();
  void read_socket(Turn& turn);
  bool introduced(Turn& turn);
  static void violation(Turn& turn, const char* why);
  void end(Turn& turn);
  void progress(Link& link, Turn& turn);

  // UcxSink
  void pushed(const UcxTag& tag, const std::byte* data, std::size_t size) override;
  bool announced(const UcxTag& tag, std::size_t size, void* ticket) override;
  void fetched(std::uint64_t cookie, bool ok) override;
  void sent(std::uint64_t cookie) override;

  bool expected(const UcxTag& tag);
  void fetch_more();
  void arrived(Slot* slot, bool ok);
  void deliver(const std::byte* data, std::size_t size);
  void deliver_held();
  std::size_t frame(const std::byte* data, std::size_t size);
  void release(Slot* slot);

  bool fill_short(Link& link, Turn& turn, Wanted wanted);
  bool fill_long(Link& link, Turn& turn, Wanted wanted);
  std::size_t put(const Frame& frame, std::byte* out);
  void dispatch(Link& link, Turn& turn, Slot* slot, std::size_t size, bool push);
  void settle();
  bool nap();

  int fd_;
  int timer_fd_ = -1;
  std::uint32_t chunk_;
  bool sealed_;
  std::unique_ptr<UcxPort, UcxRelease> port_;

  // the socket
  std::string out_;
  std::string in_;
  std::size_t wanted_ = 4;
  datagram::AesKey address_key_{};
  bool look_ = true;
  bool eof_ = false;
  bool connected_ = false;
  std::int64_t grace_ = 0;  // until when what the peer said before its end may still come

  // sending
  FrameWriter writer_;
  std::array<std::byte, 16> own_token_{};
  std::vector<Slot> slots_;  // kShort + kLong to send, then kLong + 1 to fetch into
  std::vector<Slot*> free_short_;
  std::vector<Slot*> free_long_;
  std::vector<Slot*> free_fetch_;
  std::array<bool, kAhead> going_{};
  std::uint64_t next_ = 0;
  std::uint64_t floor_ = 0;  // all before it is with the peer
  bool flushed_ = true;

  // receiving; `link_` and `turn_` are there during progress() only
  FrameReader reader_;
  std::array<std::byte, 16> peer_token_{};
  std::uint64_t expected_ = 0;
  std::map<std::uint64_t, Held> held_;
  std::deque<Offer> offers_;
  Link* link_ = nullptr;
  Turn* turn_ = nullptr;
  std::uint64_t share_ = 0;
  int busy_ = 0;
  bool armed_ = false;
};

}  // namespace genie
