"""Error codes of this area; see the package's docstring for the ranges.

GEN060x set-up and connection · GEN061x the life of one transfer · GEN062x buffers and handles ·
GEN063x integrity · GEN064x network devices under DPDK · GEN065x choosing and changing
paths · GEN066x UCX · GEN067x memory. The refusals that a receiver sends (0623–0627, 0630) travel as
bare numbers.
"""

from genie_schemas.errors._registry import ExitCode

TABLE: dict[str, tuple[str, ExitCode, str]] = {
    "GEN0600": (
        "The peer refused a transfer",
        ExitCode.FAILURE,
        """The receiving side refused a transfer for a reason that this version does not know. Its
        number is in the message. The two sides probably run different versions: compare them with
        `genie doctor` on both machines.""",
    ),
    "GEN0601": (
        "No such transport path",
        ExitCode.USAGE,
        """A transport path was named that this build does not have. A named path is never
        silently replaced by another one; the message lists the paths that exist.""",
    ),
    "GEN0602": (
        "An endpoint or transport option is malformed",
        ExitCode.USAGE,
        """Endpoints are written unix:///absolute/path or tcp://host:port (port 0 lets the system
        choose when listening, and IPv6 addresses stand in brackets). Session ids have 1 to 128
        characters of A-Z a-z 0-9 . _ : - and session keys 16 to 64 bytes.""",
    ),
    "GEN0603": (
        "A connection beyond this machine needs TLS",
        ExitCode.AUTHENTICATION,
        """Transfers that leave the machine are carried only over mutually authenticated TLS 1.3.
        This holds for every address that is not a loopback address, 0.0.0.0 and :: included, and
        no option overrides it. Give the listener and the dialling side a TLS context whose
        minimum version is TLS 1.3 and which requires the peer's certificate.""",
    ),
    "GEN0604": (
        "The peer cannot be reached",
        ExitCode.UNREACHABLE,
        """Nothing answered at the endpoint within the time allowed: no daemon listens there, the
        address is wrong, the Unix socket belongs to another user, or the network drops the
        packets. The cause names what the system reported.""",
    ),
    "GEN0605": (
        "Listening failed",
        ExitCode.FAILURE,
        """The endpoint could not be opened for peers: another process listens there, the folder of
        the Unix socket is missing or not writable, or something that is not a socket has its
        name. A socket file left behind by a dead process is replaced without asking.""",
    ),
    "GEN0606": (
        "The peer refused the session",
        ExitCode.AUTHENTICATION,
        """Both sides prove that they hold the session's key before any transfer. The proof failed,
        or the session is not (or no longer) expected there; the listener does not say which, so
        that nobody can probe for sessions. TLS certificates that do not verify end here too.
        Open a new session and connect with its key.""",
    ),
    "GEN0607": (
        "The peer speaks another version of the transfer protocol",
        ExitCode.VERSION,
        """The data connection starts by naming its protocol version, and the two sides found no
        common one. Install the same release of Genie on both machines.""",
    ),
    "GEN0608": (
        "The session already has a peer",
        ExitCode.FAILURE,
        """A session has one data connection. This one is connected, or expected, already. Close
        the first manager before you expect or dial the same session again.""",
    ),
    "GEN0609": (
        "The path is not there",
        ExitCode.UNREACHABLE,
        """A transport path was named that this build or the peer cannot take: its native part is
        not built, or the peer named another path. A named path is never silently replaced. Build
        the native part on both sides (a C++20 compiler, CMake and OpenSSL's headers, then
        `pip install -e . --no-build-isolation`), or name no path and let the peers choose.""",
    ),
    "GEN0610": (
        "The connection to the peer was lost",
        ExitCode.UNREACHABLE,
        """The data connection ended while it was in use: the peer closed it, died, or the network
        failed. Every outstanding transfer of the connection fails with this code and none of them
        is reported as arrived unless the receiver had verified it. Connections are not reopened
        by themselves: open a new one and post again; a transfer may be repeated safely.""",
    ),
    "GEN0611": (
        "The transfer manager is closed",
        ExitCode.FAILURE,
        """close() was called on this side. Transfers that were outstanding at that moment fail
        with this code, and so does every later call.""",
    ),
    "GEN0612": (
        "The transfer was cancelled",
        ExitCode.FAILURE,
        """cancel() was called before the transfer was done, or the asyncio task that awaited it
        was cancelled. The destination may hold part of the bytes; it was not reported as
        arrived.""",
    ),
    "GEN0613": (
        "The transfer missed its deadline",
        ExitCode.DEADLINE,
        """The receiver had not verified all bytes within the time given to post() or arrival().
        The message says how far the transfer was. A peer that is alive but slow is not an error
        by itself: give more time, or send less at a higher priority.""",
    ),
    "GEN0614": (
        "The transfer queue is full",
        ExitCode.FAILURE,
        """The number of outstanding transfers to one peer is bounded, so that a slow peer costs
        bounded memory. Wait for some of the transfers, or give post() a time to wait for room.""",
    ),
    "GEN0615": (
        "The peer has stalled",
        ExitCode.UNREACHABLE,
        """The connection is open but the peer has not sent a byte, not even the keepalive, for the
        stall time. It hangs, is stopped, or the network between drops everything.""",
    ),
    "GEN0620": (
        "The buffer is not contiguous",
        ExitCode.FAILURE,
        """Only memory without gaps, in row-major order, can be registered: a transfer moves bytes
        and knows no strides. Register the tensor that the view was taken from, permute it back to
        its storage order, or make it contiguous first.""",
    ),
    "GEN0621": (
        "The object cannot be registered as memory",
        ExitCode.FAILURE,
        """register() takes objects with the buffer protocol (bytes, bytearray, mmap, memoryview,
        NumPy arrays), and CPU tensors through DLPack, and this path moves host memory only.
        Tensors that require gradients must be detached first.""",
    ),
    "GEN0622": (
        "A handle is malformed",
        ExitCode.FAILURE,
        """A DMA handle that came from outside does not have the documented fields, types and
        ranges. It is refused as a whole and nothing of it is used.""",
    ),
    "GEN0623": (
        "The handle is not registered there",
        ExitCode.FAILURE,
        """The handle was withdrawn, belongs to another session or another manager, or never
        existed; the peer does not say which. Register the buffer again and send the new
        handle.""",
    ),
    "GEN0624": (
        "The handle belongs to an older epoch",
        ExitCode.FAILURE,
        """The epoch of the receiver has moved on since the handle was made, for instance because
        the work was taken over by another attempt. Nothing is written through an old handle.
        Ask the receiver for a handle of its present epoch.""",
    ),
    "GEN0625": (
        "The range leaves the registered memory",
        ExitCode.FAILURE,
        """Offset and length of the handle do not lie within what was registered under its key.
        Nothing was written.""",
    ),
    "GEN0626": (
        "The destination is read-only",
        ExitCode.FAILURE,
        """The destination was registered from a read-only buffer (bytes, a read-only array or
        mapping). Such a buffer can be a source, never a destination.""",
    ),
    "GEN0627": (
        "The destination is being written by another transfer",
        ExitCode.FAILURE,
        """Two unfinished transfers may not write the same bytes, else neither could be reported as
        arrived. Wait for the first one, or cancel it, and post again.""",
    ),
    "GEN0628": (
        "Source and destination differ in length",
        ExitCode.FAILURE,
        """A transfer moves exactly as many bytes as both handles name. Use DMAHandle.part() to
        name a part of the longer one.""",
    ),
    "GEN0630": (
        "The payload was damaged on its way",
        ExitCode.FAILURE,
        """The receiver computed another authentication tag than the sender: the bytes changed on
        the way, or the source buffer was modified while it was being sent. The transfer failed;
        nothing was reported as arrived. It may be posted again.""",
    ),
    "GEN0631": (
        "The peer broke the transfer protocol",
        ExitCode.FAILURE,
        """A frame was forged, replayed, out of order or impossible: its header's tag, sequence
        number, size or offset does not fit. The connection is ended at once, since nothing that
        follows can be trusted.""",
    ),
    "GEN0640": (
        "The session's key is used up",
        ExitCode.FAILURE,
        """One key may seal a bounded number of datagrams, so that none can be forged. The session
        has reached it, after half a pebibyte or so. Open a new session, which has new keys.""",
    ),
    "GEN0641": (
        "The port has lost its carrier",
        ExitCode.UNREACHABLE,
        """The network device under the session had no carrier for five seconds: the cable, the
        switch, the peer's interface, or this interface was taken down. A shorter loss is forgiven.
        Transfers that were outstanding were not reported as arrived, and may be repeated.""",
    ),
    "GEN0642": (
        "The device cannot be used",
        ExitCode.UNREACHABLE,
        """DPDK has no driver for the device, the driver refuses it, it is in use already, or it
        cannot carry datagrams of the size that both sides have. The cause names which. A PCI
        device must be bound to a driver that DPDK knows (vfio-pci), a memif client needs a server
        that listens already, and AF_XDP carries no large frames.""",
    ),
    "GEN0643": (
        "No memory is left for the device",
        ExitCode.FAILURE,
        """Packet buffers and rings come from memory that DPDK reserves once, when it starts in a
        process, or from the huge pages of the machine. Reserve more, or use a smaller MTU.""",
    ),
    "GEN0644": (
        "DPDK is not there",
        ExitCode.UNREACHABLE,
        """A device under DPDK was asked for, and this build has no DPDK part: the libraries were
        missing or older than 22.11 when Genie was installed, or they are missing now. Install them
        and build again: on Debian and Ubuntu `apt-get install dpdk-dev libdpdk-dev`, then
        `pip install -e . --no-build-isolation`. No other path needs them.""",
    ),
    "GEN0645": (
        "DPDK did not start",
        ExitCode.FAILURE,
        """DPDK's environment starts once in a process and cannot be ended and begun again. It
        refused to start, or it runs already with options that exclude what is asked of it. The
        cause says which; name all devices before the first is opened, or restart the process.""",
    ),
    "GEN0646": (
        "There are too few huge pages",
        ExitCode.FAILURE,
        """Huge pages were demanded (pages=huge), and the machine has fewer free ones than
        DPDK is to get. Reserve them with `sysctl vm.nr_hugepages=N` (2 MiB each), give DPDK less
        memory, or allow ordinary pages, which cost some speed.""",
    ),
    "GEN0647": (
        "The network interface cannot be used",
        ExitCode.UNREACHABLE,
        """The interface does not exist in the network namespace, is down, or has a smaller MTU
        than was asked for. The cause names the command that mends it. Names of interfaces are
        looked up in the namespace that was named, not in the caller's.""",
    ),
    "GEN0648": (
        "The interface carries the host's own address",
        ExitCode.USAGE,
        """The data plane answers for an address of its own, and needs an interface for itself:
        on one that carries an address of the host, the kernel would answer too, and the host's
        traffic would be lost. Use a VLAN, a virtual function or a veth without an address.""",
    ),
    "GEN0649": (
        "No permission to use the device",
        ExitCode.AUTHENTICATION,
        """Packet sockets and AF_XDP need CAP_NET_RAW and CAP_NET_ADMIN, another network namespace
        CAP_SYS_ADMIN, and PCI devices access to /dev/vfio. Grant the capabilities to the daemon
        (AmbientCapabilities= in its unit), or run it as root.""",
    ),
    "GEN0650": (
        "No DPDK port is open",
        ExitCode.UNREACHABLE,
        """The dpdk path was named, and this side has no port for it, or its port is down. A named
        path is never silently replaced. Ports belong to daemons: start genied with --dpdk DEVICE,
        or name no path and let the peers choose.""",
    ),
    "GEN0651": (
        "The port does not reach the peer",
        ExitCode.UNREACHABLE,
        """Both sides have a port and agreed on the dpdk path, but no datagram came through. Check
        that both ports are on one network (the same cable, switch or memif socket), that their
        addresses differ and lie in one /24, that the frames of one fit the other's MTU, and that
        nothing between them drops UDP.""",
    ),
    "GEN0652": (
        "The session could not move to its next path",
        ExitCode.UNREACHABLE,
        """The port's path was lost, the peers agreed on what had arrived, and the next path could
        not be opened. Every outstanding transfer fails and none is reported as arrived unless its
        receiver had verified it. Open a new connection and post again.""",
    ),
    "GEN0665": (
        "The ucx path is not there",
        ExitCode.UNREACHABLE,
        """The ucx path was named, and Genie was built without UCX or its libraries cannot be
        loaded. A named path is never silently replaced. Install UCX 1.12 or newer with its headers
        (Debian, Ubuntu: apt-get install libucx-dev; or the package of the network card's vendor)
        and run `make setup`, or name another path.""",
    ),
    "GEN0666": (
        "UCX over a network needs that network declared trusted",
        ExitCode.AUTHENTICATION,
        """UCX believes whoever reaches the ports that it opens: its transports let a stranger
        write into the memory of the process. Encrypted frames do not help against that. So the
        ucx path leaves a machine's shared memory only where both sides declare the network, with
        all hosts and users on it, trusted. A network of its own for the machines, such as an RDMA
        fabric, is; the loopback device of a machine with other users is not.""",
    ),
    "GEN0667": (
        "UCX cannot start",
        ExitCode.FAILURE,
        """UCX found no transport that it may use, or no memory for it. The cause says what UCX
        reported. Its choice can be narrowed by the UCX_ variables of the environment (UCX_TLS,
        UCX_NET_DEVICES); `ucx_info -d` of the package ucx-utils lists what the machine has.""",
    ),
    "GEN0671": (
        "An arena cannot be made",
        ExitCode.FAILURE,
        """genie_transport.Arena takes its memory at once, so that no later access can fail. The
        machine, or the cgroup of the process, does not have that much free, or the size is not
        positive. Huge pages are no condition: without them an arena has small ones.""",
    ),
    "GEN0672": (
        "The arena is closed",
        ExitCode.FAILURE,
        """close() was called on the arena. Arrays that were made of it before stay valid; new ones
        cannot be made, and it cannot be shared any more.""",
    ),
}
