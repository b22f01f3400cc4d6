"""Error codes of this area; see the package's docstring for the ranges."""

from genie_schemas.errors._registry import ExitCode

TABLE: dict[str, tuple[str, ExitCode, str]] = {
    "GEN0400": (
        "An input is missing",
        ExitCode.USAGE,
        "The entry point takes an input that the call did not give. Inputs carry the parameter "
        "names of the model's forward; `genie plan show` lists them. Give each with --input "
        "NAME=FILE.npy, or all in one file with --inputs FILE.safetensors.",
    ),
    "GEN0401": (
        "An input that the plan does not have",
        ExitCode.USAGE,
        "The call gave an input under a name that the entry point does not take. Nothing was "
        "run. Compare the name with the ones that `genie plan show` lists.",
    ),
    "GEN0402": (
        "An input has the wrong dtype",
        ExitCode.USAGE,
        "A plan is compiled for the dtype that the spec declares and never converts silently, "
        "because a conversion would change results. Convert the array before the call, or "
        "change the spec's dtype and compile again.",
    ),
    "GEN0403": (
        "An input has the wrong shape",
        ExitCode.USAGE,
        "The number of dimensions, or a dimension whose size the spec fixes, differs from the "
        "array given. Named dimensions may vary within their range; the others may not.",
    ),
    "GEN0404": (
        "A dimension lies beyond its range",
        ExitCode.USAGE,
        "The spec bounds every named dimension, and the plan's memory was checked for these "
        "bounds alone. Split the batch, or widen the range under `dims` in the spec and compile "
        "again.",
    ),
    "GEN0405": (
        "Two inputs disagree on a dimension",
        ExitCode.USAGE,
        "Inputs that name the same dimension must have the same size there. The error names "
        "both inputs and both sizes.",
    ),
    "GEN0406": (
        "An input file cannot be read",
        ExitCode.USAGE,
        "Inputs are read from .npy, .npz (arrays, never pickled objects) and .safetensors "
        "files. The file is missing, damaged, or holds something else.",
    ),
    "GEN0407": (
        "The plan has no such entry point",
        ExitCode.USAGE,
        "--entrypoint names a callable of the plan; most plans have one, `forward`. `genie plan "
        "show` lists them.",
    ),
    "GEN0408": (
        "The outputs cannot be written",
        ExitCode.FAILURE,
        "The run ended well, but its outputs could not be written to the file given with "
        "--output. With a --run-id, the same command hands the recorded result out again "
        "without running.",
    ),
    "GEN0409": (
        "Inputs share memory, and the model writes to one",
        ExitCode.USAGE,
        "Two arrays of the call overlap (the same array twice, or views of one), and the model's "
        "forward writes to one of them. Run eagerly it would change both; a plan works on a copy "
        "of each, so that the results would differ. Give a copy of one. Arrays that overlap and "
        "are only read may be given as they are.",
    ),
    "GEN0410": (
        "The run id was used for something else",
        ExitCode.FAILURE,
        "A run id names one result for ever: the same plan, entry point and inputs. It was used "
        "before with others, so neither the recorded result nor a new one may be returned under "
        "it. Choose another --run-id, or none.",
    ),
    "GEN0411": (
        "The recorded result is no longer kept",
        ExitCode.FAILURE,
        "The run of this id ended well, but its outputs were removed since, to keep the ledger "
        "within its configured size and age. It is not run again silently, because its effects "
        "were published once already. Choose a new --run-id to run anew.",
    ),
    "GEN0412": (
        "The device is too small for the plan",
        ExitCode.FAILURE,
        "A plan states the peak memory that it needs on each device at its largest sizes, and "
        "the daemon admits a run only when all of it fits. This plan can never fit on the "
        "device as it is. Lower the maxima under `dims`, spread the model over more devices, or "
        "offer a device with more memory (genied --device).",
    ),
    "GEN0413": (
        "No room for the run in time",
        ExitCode.DEADLINE,
        "The plan fits the device, but other runs held its memory until the deadline. Try again "
        "later, give a longer deadline, or offer more memory.",
    ),
    "GEN0414": (
        "The run's deadline passed",
        ExitCode.DEADLINE,
        "The run was stopped and its memory freed, because it had not ended when its deadline "
        "came. A deadline comes from the call or from the daemon's limit, whichever is earlier.",
    ),
    "GEN0415": (
        "The run was cancelled",
        ExitCode.FAILURE,
        "Somebody cancelled the run, its client went away, or its session ended. Nothing was "
        "published.",
    ),
    "GEN0416": (
        "No run of that id",
        ExitCode.FAILURE,
        "The daemon knows no run under this id that is still going on. It may have ended, or "
        "run on another daemon. `genie status` shows the runs that are going on.",
    ),
    "GEN0417": (
        "The run id is not well-formed",
        ExitCode.USAGE,
        "A run id is 1 to 128 characters out of letters, digits and . _ : - and starts with a "
        "letter or a digit.",
    ),
    "GEN0418": (
        "A transfer of the run failed",
        ExitCode.FAILURE,
        "Bytes that the run needed did not arrive at another device, a daemon or the client. "
        "The cause names the transfer and the path. Nothing was published.",
    ),
    "GEN0419": (
        "The runtime failed in an unforeseen way",
        ExitCode.INTERNAL,
        "A bug of Genie: the run was ended and its memory freed. Please report it with the text "
        "of the cause.",
    ),
    "GEN0420": (
        "The plan's devices cannot be bound",
        ExitCode.FAILURE,
        "Every device of a plan is bound to a device of a daemon, of the same kind. CUDA "
        "devices are bound one to one; CPU devices may share one. The daemons given do not have "
        "what the plan wants: `genie status` shows what they offer.",
    ),
    "GEN0421": (
        "The plan needs a feature that is not offered",
        ExitCode.VERSION,
        "`requires` in the plan lists what an executor must be able to do. This daemon does not "
        "offer all of it; a newer version may.",
    ),
    "GEN0422": (
        "The endpoints do not match the plan's devices",
        ExitCode.USAGE,
        "--on ENDPOINT, repeated, binds the plan's devices in their order; --on DEVICE=ENDPOINT "
        "binds one by name. One endpoint alone serves all devices. A name is unknown, given "
        "twice, or the counts differ.",
    ),
    "GEN0423": (
        "The outputs differ from eager execution",
        ExitCode.DIFFERENCE,
        "--compare runs the model eagerly on the same inputs and compares every output. The "
        "JSON output carries the largest absolute and relative difference.",
    ),
    "GEN0424": (
        "The recorded result is damaged",
        ExitCode.FAILURE,
        "The file that holds the outputs of this run id does not match the digest in the "
        "ledger. It is not handed out. Choose a new --run-id to run anew, and check the disk.",
    ),
    "GEN0425": (
        "A constant does not match its digest",
        ExitCode.INVALID,
        "The bytes of a weight are not those that the plan was compiled with. The weights file "
        "beside the plan was changed or damaged: restore it from version control or compile "
        "again.",
    ),
    "GEN0426": (
        "The plan was not installed or is not complete",
        ExitCode.FAILURE,
        "A run was asked for before its plan was installed in the session or before all its "
        "constants had arrived. Clients of Genie never do that; install again.",
    ),
    "GEN0427": (
        "A kept tensor is not there",
        ExitCode.FAILURE,
        "A run named a tensor that its session keeps on the node between runs, and there is none "
        "of that name, device and size, or the name is taken. Kept tensors end with their session: "
        "a program on the lazy device that lost its daemon has lost its tensors, too, and starts "
        "again.",
    ),
    # -- invocations over the data plane: GEN0430 to GEN0439 --
    "GEN0430": (
        "A request does not fit its call channel",
        ExitCode.FAILURE,
        "A request over the data plane was malformed, meant for another channel, or out of turn: "
        "a replay, or a second one before the first was answered. It was not executed, and the "
        "channel was closed. Clients of Genie never send such requests.",
    ),
    "GEN0431": (
        "The session has no such call channel",
        ExitCode.FAILURE,
        "The channel was closed: by the client, by a failed invocation, or by the daemon, which "
        "closes idle channels when it needs their memory. Nothing was executed; clients open "
        "another channel by themselves.",
    ),
    "GEN0432": (
        "A daemon's reply does not fit the request",
        ExitCode.FAILURE,
        "What a daemon sent back over the data plane is no reply to the request that was sent, "
        "and no output of it was used. Run again; compare the versions that `genie --version` "
        "and the daemon's log show if it happens again.",
    ),
    # -- calling generation loops: GEN0440 to GEN0449 --
    "GEN0440": (
        "The lengths of the prompts are wrong",
        ExitCode.USAGE,
        "`lengths` holds the number of tokens of each prompt: at least 1, at most the width of the "
        "batch of prompts. Prompts that are shorter than the widest are padded at their end. It "
        "may be left out when every prompt is as long as the batch is wide.",
    ),
    "GEN0441": (
        "A setting that the entry point does not take",
        ExitCode.USAGE,
        "--set gives an entry point that generates its parameters: max_new_tokens, temperature, "
        "top_k, top_p and seed, each a number. Other entry points take none; with --compare, --set "
        "gives the spec's template variables their values.",
    ),
    # -- executors and arenas: GEN0450 to GEN0499 --
    "GEN0450": (
        "The executor of a device died",
        ExitCode.FAILURE,
        """The process that computes for a device ended while the run was on it: it was killed, ran
        out of memory or crashed in a kernel. The runtime starts it again by itself and the attempt
        may be repeated. When it happens again with the same plan, look at the executor's log and
        at the kernel log (dmesg) for the out-of-memory killer.""",
    ),
    "GEN0451": (
        "The executor of a device stopped answering",
        ExitCode.FAILURE,
        """The process that computes for a device did not answer the liveness checks, or a kernel of
        it ran on long after the deadline of its step. The runtime ended it and starts it again.
        Raise timeout_ms of the step's policy when the computation is meant to take that long.""",
    ),
    "GEN0452": (
        "The plan is quarantined",
        ExitCode.FAILURE,
        """Three times in a row the executor died while it was computing a step of this plan. Other
        plans keep running; this one is refused until it is uninstalled. Find out why it crashes
        (the executor's log names the signal), then install it again.""",
    ),
    "GEN0453": (
        "The executor of a device cannot start",
        ExitCode.FAILURE,
        """The process that computes for a device ended before it was ready, or was not ready in
        time. The cause says what is known. Usual reasons: torch is not installed for this Python,
        the device does not exist, or the machine has no memory left. `genie doctor` looks.""",
    ),
    "GEN0454": (
        "An executor and its supervisor do not understand each other",
        ExitCode.FAILURE,
        """A control message between the runtime and its executor process was cut short, larger than
        allowed or not of a known form. Both must come from the same installation of Genie.""",
    ),
    "GEN0455": (
        "The executor does not hold what the run needs",
        ExitCode.FAILURE,
        """The plan is not installed on the executor for that device, or one of its constants has
        not been loaded. Install the plan and load its constants, then run again.""",
    ),
    "GEN0456": (
        "The plan's operators differ from this torch's",
        ExitCode.VERSION,
        """A plan records the hash of the schema of each operator that it uses. This torch lacks one
        of them or declares it differently, so the plan could mean something else here. Compile the
        plan again with this torch, or run it with a torch whose operators match.""",
    ),
    "GEN0457": (
        "The executor cannot run this operator",
        ExitCode.INVALID,
        """The plan calls something that is no operator overload this executor runs. Only exact
        overloads of aten are accepted, by name; nothing is imported or looked up elsewhere.""",
    ),
    "GEN0458": (
        "A program of the plan is malformed",
        ExitCode.INVALID,
        """A program reads a value that nothing before it writes, has an argument that cannot be
        read, or expects another number of results than its operator returns. A verified plan has
        none of these: run `genie plan verify`, and compile the plan again.""",
    ),
    "GEN0460": (
        "An operator failed",
        ExitCode.FAILURE,
        """A kernel refused its operands, for instance an index outside an embedding table. The
        error names the step and the operator. Check the values of the inputs: shapes and dtypes
        have been checked already. Trying again with the same inputs fails again.""",
    ),
    "GEN0461": (
        "A value is not of its declared type",
        ExitCode.FAILURE,
        """A program produced a tensor whose shape or dtype is not the one that the plan declares
        for these dimension sizes, so it was not handed on. The plan does not describe its own
        computation: compile it again, and report it when that does not help.""",
    ),
    "GEN0462": (
        "The device is too small",
        ExitCode.FAILURE,
        """At these dimension sizes the run holds more bytes at once than the device may use. Use a
        smaller batch, a device with more memory, or spread the model over several devices.""",
    ),
    "GEN0463": (
        "The device ran out of memory",
        ExitCode.FAILURE,
        """The device could not give the memory that a step needs now, because other runs or other
        programs hold it. The attempt may succeed later. Lower what runs at the same time, or give
        the device's limit in genied's --device closer to what is really free.""",
    ),
    "GEN0464": (
        "A step exceeded its deadline",
        ExitCode.DEADLINE,
        """A step computed, or waited for its device or for an incoming transfer, longer than
        timeout_ms of its policy allows. Raise the timeout, or find out why the step is slow:
        `genie status` shows what the daemon is doing.""",
    ),
    "GEN0466": (
        "A memory region does not fit its value",
        ExitCode.FAILURE,
        """A region handed to an executor lies outside its arena, is not aligned to 64 bytes, or has
        another length than the value's type at these dimension sizes. This is checked before
        anything is read or written. Report it: clients cannot cause it.""",
    ),
    "GEN0467": (
        "The request does not match the plan",
        ExitCode.USAGE,
        """The request names an entry point, a device or a dimension size that the plan does not
        have, or leaves out a region that a step needs. The cause names it.""",
    ),
    "GEN0468": (
        "The device does not exist",
        ExitCode.FAILURE,
        """The executor was started for a device that torch does not find on this machine. `genie
        doctor` lists the devices; a CUDA device also needs a torch built for CUDA and a driver.""",
    ),
    "GEN0469": (
        "The run is on this device already",
        ExitCode.FAILURE,
        """A run with this key is being computed on this device. Wait for it or cancel it before
        another attempt.""",
    ),
    "GEN0470": (
        "The memory pool is too small",
        ExitCode.FAILURE,
        """One request asks for more shared memory than the pool may ever hold. Raise the limit of
        the runtime's shared memory, or use smaller inputs.""",
    ),
    "GEN0471": (
        "A shared memory area was refused",
        ExitCode.FAILURE,
        """A shared memory area handed over by another process is shorter than declared or not
        sealed against shrinking. Using it could crash this process, so it is not mapped.""",
    ),
    "GEN0472": (
        "No shared memory came free in time",
        ExitCode.FAILURE,
        """The pool of shared memory is in use by other runs and nothing was given back before the
        deadline. Try again later, lower the number of concurrent runs, or raise the limit.""",
    ),
    "GEN0473": (
        "GPU-direct cannot be had",
        ExitCode.FAILURE,
        """genied was started with --gpu-direct on, and something between the GPU and the network is
        missing: a driver, a kernel module that lets a NIC reach GPU memory (nvidia_peermem or
        gdrdrv), DPDK's gpudev driver for CUDA (Debian's packages come without it), or a transport
        that registers GPU memory. The cause lists what. With `genied --gpu-direct auto` values pass
        through pinned memory of the host instead; `genie status` says which of the two is in
        force.""",
    ),
    "GEN0474": (
        "output larger than its bound",
        ExitCode.FAILURE,
        "The size of this output follows from the data, and the plan holds memory for the most "
        "that the model said it can be, with `torch._check`. The run made it larger. Widen the "
        "bound and compile again, or keep the inputs to it.",
    ),
    # -- state and generation: GEN0475 to GEN0489 --
    "GEN0475": (
        "The state is not there",
        ExitCode.FAILURE,
        """A run continues state (a KV cache) that the device does not hold: it was freed, its
        session ended, or the executor was started again since. Begin anew: run the entry point that
        makes the state (prefill) with the tokens so far.""",
    ),
    "GEN0476": (
        "The state is at another version",
        ExitCode.FAILURE,
        """State is versioned: a run says which version it continues, and each run that ends well
        makes the next one. Another run has moved this state on, or the caller lost count. Nothing
        was changed. Continue from the version that the last answer named, or begin anew.""",
    ),
    "GEN0477": (
        "The state was made for other sizes",
        ExitCode.USAGE,
        """The dimensions of state, such as the batch, are fixed by the run that makes it; a run
        that continues it has the same. Call with as many rows, or begin anew.""",
    ),
    "GEN0478": (
        "The state is in use",
        ExitCode.FAILURE,
        """Another run works on this state and did not end in time. One state serves one run after
        the other: wait for the first, or keep a state for each sequence.""",
    ),
    "GEN0479": (
        "The tokens do not fit the cache",
        ExitCode.USAGE,
        """A plan's KV cache holds a fixed number of tokens, those of the prompt and the new ones
        together. Nothing was generated. Ask for fewer tokens, shorten the prompt, or raise
        `llm.max_cache_len` in the spec and compile again.""",
    ),
    "GEN0480": (
        "A generation parameter is out of range",
        ExitCode.USAGE,
        """`max_new_tokens` is at least 1, `temperature` 0 (the likeliest token) or more, `top_k` 0
        (every token) or more, `top_p` above 0 and at most 1, `seed` from 0 to 2^53 - 1.""",
    ),
    "GEN0481": (
        "No token can be drawn",
        ExitCode.FAILURE,
        """The model's scores for the next token are not numbers (NaN), so that no probabilities
        follow from them. The weights are damaged or the computation overflowed: compare with the
        model itself on the same prompt.""",
    ),
}
