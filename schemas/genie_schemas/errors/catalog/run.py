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
}
