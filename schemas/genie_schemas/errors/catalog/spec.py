"""Error codes of specs (GEN0100-0129) and of the command line itself (GEN0130-0199)."""

from genie_schemas.errors._registry import ExitCode

_INVALID = ExitCode.INVALID
_USAGE = ExitCode.USAGE

TABLE: dict[str, tuple[str, ExitCode, str]] = {
    "GEN0101": (
        "The spec cannot be read",
        _INVALID,
        """The file named as the spec does not exist, is a folder, or may not be read by this user.
        Paths are taken relative to the working directory. Check the spelling: files with a similar
        name beside it are suggested.""",
    ),
    "GEN0102": (
        "The file is not valid YAML or TOML",
        _INVALID,
        """A spec whose name ends in .toml is read as TOML 1.0, every other one as YAML 1.2. The
        caret marks where the reader gave up; the mistake is there or just before it. Common ones:
        a tab used for indentation, a missing space after a colon, a quote that is never closed, and
        a template without quotes (write width: "{{ width }}").""",
    ),
    "GEN0103": (
        "The file is not UTF-8 text",
        _INVALID,
        """Specs are UTF-8 text without control characters. Save the file as UTF-8 again; a file
        that holds a zero byte is usually binary, or UTF-16.""",
    ),
    "GEN0104": (
        "The file is too large",
        _INVALID,
        """Specs and configuration files are limited to 256 KiB, which is far more than a spec
        needs. Tensors never belong in a spec: name a safetensors file under model.weights.""",
    ),
    "GEN0105": (
        "The file is nested too deeply",
        _INVALID,
        """Lists and mappings may be nested 64 deep, aliases counted as what they stand for. The
        limit is checked while reading, before anything is built, so that a hostile file costs
        nothing.""",
    ),
    "GEN0106": (
        "The file expands to too many values",
        _INVALID,
        """A file may hold 100,000 values after its aliases are expanded. A few lines of aliases to
        aliases can stand for billions of values (an "alias bomb"); the count is taken while
        reading, so nothing is ever expanded that far.""",
    ),
    "GEN0107": (
        "Tags are not allowed",
        _INVALID,
        """YAML tags (!name, !!type) ask the reader to build a chosen type, in some readers any
        Python object at all. A spec holds plain values only and its types come from the schema:
        remove the tag.""",
    ),
    "GEN0108": (
        "A key is given twice",
        _INVALID,
        """A mapping names the same key more than once. Readers disagree on which of the two would
        count, so neither is taken: keep one.""",
    ),
    "GEN0109": (
        "The file holds something that a spec cannot",
        _INVALID,
        """A spec is one document whose top level is a mapping with text keys; its values are
        mappings, lists, text, finite numbers of at most 64 bits, true, false and null. Empty
        files, several documents, lists as keys, dates, infinities and NaN are refused.""",
    ),
    "GEN0110": (
        "Unknown key",
        _INVALID,
        """The spec uses a key that does not exist at this place. Unknown keys are refused, not
        ignored, because a misspelt key would otherwise leave its default in force. `genie schema
        spec` prints every key; editors can check it while you type.""",
    ),
    "GEN0111": (
        "A required key is missing",
        _INVALID,
        """A mapping lacks a key that has no default. The caret marks the mapping that should hold
        it. Every spec needs genie, name and inputs.""",
    ),
    "GEN0112": (
        "A value has the wrong type",
        _INVALID,
        """The schema wants another type of value here. Values are not converted: 8 is a number,
        "8" is text, and yes, no, on and off are text (YAML 1.2). Text that a template rendered is
        the exception: it is read like a plain YAML value.""",
    ),
    "GEN0113": (
        "A value is not one of those allowed",
        _INVALID,
        """This key takes one of a fixed set of values, such as a dtype, a workload or an error
        code. The message lists them, and the one most like what was written.""",
    ),
    "GEN0114": (
        "A value is out of range",
        _INVALID,
        """A number, or the length of a list or text, lies outside the limits of its key. The
        message names the limit that was crossed.""",
    ),
    "GEN0115": (
        "A value is malformed",
        _INVALID,
        """A name, size, duration or path is not written as it must be. Sizes are bytes or a number
        with a unit (512MiB, 2GiB, 1.5GB); durations have a unit (50ms, 30s, 2m, 1h). Inputs and
        dimensions are Python identifiers, because they are parameter names of forward and names of
        symbolic dimensions. Weights are a safetensors file, relative to the spec.""",
    ),
    "GEN0116": (
        "A shape uses a dimension that is not declared",
        _INVALID,
        """A name inside a shape stands for a dynamic dimension, and each one is declared under
        dims with its range: dims: {batch: {min: 1, max: 64}}. A dimension of fixed size is written
        as its number.""",
    ),
    "GEN0117": (
        "A declared dimension is not used",
        _INVALID,
        """Every dimension under dims appears in the shape of at least one input; one that does not
        is usually a misspelling. Use it in a shape, or remove it.""",
    ),
    "GEN0118": (
        "The range of a dimension contradicts itself",
        _INVALID,
        """A dimension needs min < max and an example within that range. The example is the extent
        the model is traced with, 2 unless given: tracing with 1 would silently fix the dimension
        to 1, so 1 is refused. A dimension with only one possible extent is no dynamic dimension:
        write its number in the shape.""",
    ),
    "GEN0119": (
        "A stage is placed on a device that is not declared",
        _INVALID,
        """Each stage under placement names a device from the devices list. Without a devices list
        there is one device, d0.""",
    ),
    "GEN0120": (
        "A name is used twice",
        _INVALID,
        """Device ids are unique, and a module belongs to one stage only. Rename or remove one of
        the two.""",
    ),
    "GEN0121": (
        "A template uses a variable without a value",
        _INVALID,
        """A template in the spec, such as "{{ width }}", names a variable that no --set gave a
        value. Pass --set width=32, or write a default into the template:
        "{{ width | default(32) }}".""",
    ),
    "GEN0122": (
        "A template cannot be rendered",
        _INVALID,
        """The text between {{ }} or {% %} is not valid Jinja, uses something that the sandbox does
        not allow, or failed while it was rendered. Templates see the --set variables and range();
        they cannot read files, import, or reach Python objects. To write two braces as plain text,
        use {{ '{{' }}.""",
    ),
    "GEN0123": (
        "A template needs too much time or memory",
        _INVALID,
        """Rendering all templates of a spec may take 2 seconds of processor time, 256 MiB of memory
        and produce 1 MiB of text. They are rendered in a child process held to these limits, so a
        runaway template cannot harm the compiler.""",
    ),
    "GEN0124": (
        "A --set value is not usable",
        _USAGE,
        """--set takes name=value with a name that at least one template of the spec uses. A value
        that nothing uses is refused, because it is usually a misspelt name.""",
    ),
    "GEN0125": (
        "The spec is written for another version of Genie",
        ExitCode.VERSION,
        """The first key of a spec, genie, is the version of the spec's format. This Genie reads
        version 1. A spec of a later version needs a newer Genie: pip install --upgrade
        genie-plan.""",
    ),
    "GEN0126": (
        "A policy that nothing uses",
        _INVALID,
        """Every step follows the policy `default`. A policy under another name would be read by
        nobody, so it is refused instead of being ignored. In plans the table has names because
        later versions may bind policies to single steps.""",
    ),
    "GEN0127": (
        "The llm section contradicts the rest of the spec",
        _INVALID,
        """The section llm bounds the cache of a language model whose entry points are prefill,
        decode and generate. Their inputs follow from the model, so that the spec gives none; a
        prompt is no longer than the cache that holds it; and no other workload has the section.
        docs/llm.md tells more.""",
    ),
    "GEN0130": (
        "A configuration file is not valid",
        _USAGE,
        """genie.toml (the nearest one, from the working directory upward) and
        $XDG_CONFIG_HOME/genie/config.toml hold defaults for the options of commands, one table a
        command, keys spelt like the long options: [execute] then deadline = 60. Unknown
        tables and keys are refused. An option on the command line or a GENIE_<COMMAND>_<OPTION>
        environment variable takes precedence.""",
    ),
    "GEN0131": (
        "The command line is not valid",
        _USAGE,
        """A command, option or argument is unknown, missing, or has an unusable value. `genie
        COMMAND --help` shows what a command takes.""",
    ),
    "GEN0132": (
        "There is no such error code",
        _USAGE,
        """`genie explain` takes a code as an error message prints it: GEN and four digits. Called
        without a code it lists them all.""",
    ),
    "GEN0190": (
        "Internal error",
        ExitCode.INTERNAL,
        """Genie met a situation that its authors did not foresee: a bug, not a mistake of yours.
        Run the command again with GENIE_DEBUG=1 to write a crash report with the traceback into a
        file, look it over for anything private, and attach it to a bug report.""",
    ),
    "GEN0191": (
        "Interrupted",
        ExitCode.INTERRUPTED,
        """The command was stopped by Ctrl-C (SIGINT). Files are written completely or not at all,
        so nothing half-written is left behind; the command can be run again.""",
    ),
    "GEN0192": (
        "The operating system refused a file operation",
        ExitCode.FAILURE,
        """A file could not be read or written: it does not exist, may not be accessed, or its disk
        is full. The message is the operating system's own and names the file.""",
    ),
}
