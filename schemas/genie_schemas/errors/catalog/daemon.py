"""Error codes of this area; see the package's docstring for the ranges."""

from genie_schemas.errors._registry import ExitCode

TABLE: dict[str, tuple[str, ExitCode, str]] = {
    "GEN0500": (
        "An error from a newer peer",
        ExitCode.FAILURE,
        "The daemon reported an error whose code this version does not know; its text is shown "
        "as it came. Upgrade this side to see its explanation.",
    ),
    "GEN0501": (
        "The daemon cannot be reached",
        ExitCode.UNREACHABLE,
        "Nobody answers at the endpoint. Start one with `genie daemon --listen ENDPOINT`, check "
        "the address, and check that a Unix socket belongs to the same user.",
    ),
    "GEN0502": (
        "The daemon was lost",
        ExitCode.UNREACHABLE,
        "The connection to a daemon broke or it stopped answering its heartbeat during the "
        "work. Whether the run was published is recorded in its ledger: run again with the same "
        "--run-id, and it either returns that result or runs anew, never both.",
    ),
    "GEN0503": (
        "Client and daemon speak no common protocol",
        ExitCode.VERSION,
        "The major versions of the control protocol differ. Upgrade the older side; the error "
        "names both versions.",
    ),
    "GEN0504": (
        "The address is already served",
        ExitCode.FAILURE,
        "Another process listens at the endpoint, or the system does not let this one bind it. "
        "Stop the other, or choose another --listen.",
    ),
    "GEN0505": (
        "The state directory is in use",
        ExitCode.FAILURE,
        "One daemon alone may own a state directory, because its ledger fences out all others. "
        "Stop the other daemon or give this one its own --state-dir.",
    ),
    "GEN0506": (
        "The ledger cannot be written",
        ExitCode.FAILURE,
        "A durable record could not be made (disk full, or the disk reported an error), so the "
        "run was not accepted or not published. What was recorded before stays readable. Free "
        "space in the state directory and run again.",
    ),
    "GEN0507": (
        "The ledger cannot be read",
        ExitCode.FAILURE,
        "The database in the state directory is damaged, or was written by a newer version. It "
        "is left untouched. Restore it, upgrade, or start with a new --state-dir.",
    ),
    "GEN0508": (
        "The session has ended",
        ExitCode.UNREACHABLE,
        "The daemon does not know the session: it was restarted, or the client's heartbeat "
        "stayed away longer than its lease. Connect again; a run with a --run-id can be asked "
        "for again safely.",
    ),
    "GEN0509": (
        "A malformed message",
        ExitCode.FAILURE,
        "The other side of the control channel sent something that is no message of the "
        "protocol. Versions that do not fit, or something other than genie at the endpoint, are "
        "the usual reasons.",
    ),
    "GEN0510": (
        "The daemon is shutting down",
        ExitCode.UNREACHABLE,
        "The daemon drains: it finishes the runs that are going on and takes no new ones. Use "
        "another daemon, or wait until it is back.",
    ),
    "GEN0511": (
        "A limit of the daemon is reached",
        ExitCode.FAILURE,
        "The daemon bounds sessions, plans, runs and sizes so that one client cannot exhaust "
        "it. The error names the limit.",
    ),
    "GEN0512": (
        "The device specification is not understood",
        ExitCode.USAGE,
        "A device is given as cpu, cpu:memory=2GiB, cuda or cuda:0:memory=20GiB. Sizes take "
        "KiB, MiB, GiB or TiB.",
    ),
    "GEN0513": (
        "The machine has no such device",
        ExitCode.FAILURE,
        "--device names an accelerator that the driver does not report. `genie doctor` shows "
        "what this machine has.",
    ),
    "GEN0514": (
        "The endpoint is not understood",
        ExitCode.USAGE,
        "An endpoint is unix:///absolute/path or host:port (an IPv6 address in brackets).",
    ),
    "GEN0515": (
        "The configuration of the daemon is not valid",
        ExitCode.USAGE,
        "An option of genied has a value that it cannot have; the error names it and says what "
        "it may be.",
    ),
    "GEN0520": (
        "A public address needs TLS and a token",
        ExitCode.AUTHENTICATION,
        "Whoever reaches the port could run plans, so a daemon listens beyond loopback only "
        "with mutual TLS and a token. There is no option that overrides this. `genie auth init "
        "--host NAME` makes both; give them with --tls-dir and --token-file, or listen on a "
        "Unix socket.",
    ),
    "GEN0521": (
        "The daemon refused the token",
        ExitCode.AUTHENTICATION,
        "The token is missing or is not the daemon's. A client on the same machine and account "
        "finds it by itself; elsewhere name the file with --token-file or GENIE_TOKEN_FILE.",
    ),
    "GEN0522": (
        "The TLS identity was refused",
        ExitCode.AUTHENTICATION,
        "One side did not accept the other's certificate, or one side speaks TLS and the other "
        "does not. Both certificates must come from the same `genie auth init`, and the "
        "server's must name the host that is dialled.",
    ),
    "GEN0523": (
        "The credentials cannot be used",
        ExitCode.AUTHENTICATION,
        "A token or key file is missing, damaged, or readable by other users. Files with "
        "secrets must have mode 0600.",
    ),
    "GEN0524": (
        "Credentials exist already",
        ExitCode.FAILURE,
        "`genie auth init` never overwrites keys, because running daemons and clients depend on "
        "them. Name another --dir, or remove the old ones on purpose.",
    ),
    "GEN0525": (
        "The socket's place is not safe",
        ExitCode.AUTHENTICATION,
        "A Unix socket is as private as the folder around it. Others may rename or replace "
        "files in this one. Choose a folder of your own with mode 0700.",
    ),
    "GEN0530": (
        "A daemon has no such data path",
        ExitCode.UNREACHABLE,
        "--transport named a path, and a daemon that the run involves cannot take it. A named path "
        "is never silently replaced by another. For dpdk start the daemon with --dpdk DEVICE; for "
        "shm or tcp give it a --peer-listen on a Unix socket or on a TCP port; or name no path "
        "(--transport auto), and the best one that both sides have is taken.",
    ),
    "GEN0531": (
        "The data path does not fit",
        ExitCode.USAGE,
        "--transport names the path between daemons, and from a client on another host: auto, "
        "shm, tcp, dpdk or ucx. It has no meaning for a plan that runs in the client's own "
        "process, and shm does not reach another host.",
    ),
    "GEN0532": (
        "The interface cannot be made ready",
        ExitCode.FAILURE,
        "setup=yes brings the interface of a DPDK port up with the MTU asked for. It is not there, "
        "belongs to the host's own network (an address, a bridge, a bond), takes no such MTU, or "
        "the daemon may not change it. The host's own interfaces are never touched.",
    ),
    "GEN0590": (
        "This machine lacks something that Genie requires",
        ExitCode.FAILURE,
        """`genie doctor` compared the machine with the support matrix and found a required part
        missing or too old. Every failing line of its table carries the one command that mends it;
        `genie doctor --json` gives the same as JSON. Parts marked optional (CUDA, DPDK, RDMA and so
        on) widen what Genie can do and count only with --strict.""",
    ),
}
