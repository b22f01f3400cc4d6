"""Error codes of plans, GEN0300 … GEN0399."""

from genie_schemas.errors._registry import ExitCode

_INVALID = ExitCode.INVALID

TABLE: dict[str, tuple[str, ExitCode, str]] = {
    "GEN0300": (
        "plan file unreadable",
        _INVALID,
        "The plan could not be opened or read. Name a file that `genie compile -o` wrote, and "
        "check that you may read it.",
    ),
    "GEN0301": (
        "plan is no strict JSON",
        _INVALID,
        "A plan is strict JSON: no duplicate keys, no floats (they are hex strings), no integers "
        "of 2^53 and more, no nesting deeper than 64. A cut or hand-edited file fails here. "
        "Compile again, or restore the file from version control.",
    ),
    "GEN0302": (
        "not an execution plan",
        _INVALID,
        'The file is JSON but its "format" is not "genie.execution_plan". Perhaps it is a spec '
        "or a result; name the plan.",
    ),
    "GEN0303": (
        "plan does not follow its schema",
        _INVALID,
        "A field is missing, unknown or of the wrong type. Unknown fields are allowed only inside "
        "`advisory`. `genie schema plan` prints the schema.",
    ),
    "GEN0304": (
        "plan digest does not match",
        _INVALID,
        "`plan_digest` covers everything but itself, `provenance` and `advisory`. The content was "
        "changed after the compiler wrote it. Plans are not edited by hand: change the model or "
        "the spec and compile again.",
    ),
    "GEN0305": (
        "plan is newer than this version",
        ExitCode.VERSION,
        "`min_reader` says which reader understands the plan, and it is newer than this "
        "installation. Upgrade Genie, or compile the plan with this version.",
    ),
    "GEN0306": (
        "operator not allowed",
        _INVALID,
        "Programs may call only the exact operator overloads of the committed allow-list. The "
        "operator is unknown, off the list, or missing from `opset`.",
    ),
    "GEN0307": (
        "operator called against its schema",
        _INVALID,
        "An argument has a wrong type, is missing or is one too many, or is no tagged argument. "
        "See docs/plan-format.md, Arguments.",
    ),
    "GEN0308": (
        "name not defined",
        _INVALID,
        "A step or an operator reads something that is not defined, not loaded, or freed before. "
        "Plans are in single assignment and in order, so this is always an error of the plan.",
    ),
    "GEN0309": (
        "name defined twice",
        _INVALID,
        "Constants, states, inputs and written values share one namespace, in which every name "
        "stands for one thing. Step ids are unique too.",
    ),
    "GEN0310": (
        "transfer missing",
        _INVALID,
        "A step reads a value that lies on another device. Every move between devices is a "
        "transfer step of its own, so that both sides know of it.",
    ),
    "GEN0311": (
        "declared memory is wrong",
        _INVALID,
        "`devices.*.needs` must equal the peak that the steps have at the largest sizes: "
        "admission reserves it.",
    ),
    "GEN0312": (
        "policy not usable",
        _INVALID,
        "A step names a policy that the plan does not define, or a policy retries on a code that "
        "does not exist.",
    ),
    "GEN0313": (
        "steps out of order",
        _INVALID,
        "Every dependency must point to an earlier step; that order is the proof that the plan "
        "cannot deadlock.",
    ),
    "GEN0314": (
        "plan beyond a limit",
        _INVALID,
        "A plan may have 64 MiB, nest 64 deep and hold one million operators.",
    ),
    "GEN0315": (
        "weights file missing",
        _INVALID,
        "The safetensors file that holds the plan's constants is not beside the plan, or cannot "
        "be opened. Its name holds the digest of its content, so it can be moved with the plan, "
        "but not renamed. Put it back, or compile again.",
    ),
    "GEN0316": (
        "weights file does not match the plan",
        _INVALID,
        "A constant's bytes do not have the digest that the plan names, or the file is no sound "
        "safetensors file. It was changed, cut or swapped. Compile again or fetch it anew.",
    ),
    "GEN0317": (
        "weights path leaves the plan's folder",
        _INVALID,
        "A plan names its weights by a bare file name beside it; paths and symbolic links are not "
        "followed. A plan that tries is damaged or hostile.",
    ),
    "GEN0318": (
        "operator schemas differ",
        ExitCode.VERSION,
        "An operator of the plan has another schema in the torch installed here than in the one "
        "that the plan was captured with, so it may mean another thing. Compile again, or run on "
        "a daemon with the plan's torch.",
    ),
    "GEN0319": (
        "plan requires a feature that is not here",
        ExitCode.VERSION,
        "`requires` lists what an executor must be able to do. This one cannot do all of it. "
        "Upgrade it, or compile without what needs the feature.",
    ),
    "GEN0320": (
        "types disagree",
        _INVALID,
        "A type text does not parse, a size is negative or has no bound, a byte count does not "
        "follow from its type, or a value is used as another type than it has.",
    ),
    "GEN0321": (
        "program key does not match",
        _INVALID,
        "A program is named by the first 16 hex digits of its content's SHA-256.",
    ),
    "GEN0322": (
        "entry point broken",
        _INVALID,
        "An entry point names a step that does not exist, an output that nothing returns, or a "
        "step belongs to no entry point.",
    ),
    "GEN0323": (
        "program mutates what is not its own",
        _INVALID,
        "A program may write only to values that it created, or to declared state: otherwise a "
        "retry would start from changed inputs.",
    ),
    "GEN0324": (
        "device too small for the plan",
        _INVALID,
        "At the largest sizes of its dimensions the plan holds more than the device's memory. "
        "Lower the maxima in the spec, give the device more memory, or use more devices.",
    ),
    "GEN0325": (
        "feature used but not required",
        _INVALID,
        "A plan that keeps state or loops must list the feature in `requires`, so that an executor "
        "without it refuses the plan at once instead of failing in the middle.",
    ),
    "GEN0326": (
        "loop not usable",
        _INVALID,
        "A generation loop names an entry point and a body that give scores for the next token on "
        "one device, takes the prompts' lengths, and feeds the token that it drew to the body. "
        "See docs/plan-format.md, Loops.",
    ),
    "GEN0327": (
        "format version too low",
        _INVALID,
        "The plan holds what its format version does not have. A reader of that version would "
        "misunderstand it instead of refusing it.",
    ),
    "GEN0330": (
        "plan cannot be written",
        ExitCode.FAILURE,
        "The plan or its constants could not be written: no permission, no space, or the path is "
        "a folder. Nothing half-written is left behind.",
    ),
    "GEN0331": (
        "constants file in the way",
        ExitCode.FAILURE,
        "A constants file is named by the digest of its content. The one that is there has other "
        "content, so it is damaged; it is never overwritten. Remove it and compile again.",
    ),
    "GEN0333": (
        "the plan has no such step or program",
        ExitCode.USAGE,
        "`genie plan show --step` takes the id of a compute step, and `--program` the key of a "
        "program or its first digits. `genie plan show` lists both.",
    ),
}
