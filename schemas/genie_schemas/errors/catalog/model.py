"""Error codes of models and their capture, GEN0200 … GEN0299."""

from genie_schemas.errors._registry import ExitCode

_FAIL = ExitCode.FAILURE
_INVALID = ExitCode.INVALID

TABLE: dict[str, tuple[str, ExitCode, str]] = {
    "GEN0200": (
        "model file missing",
        _INVALID,
        "The first argument of `genie compile` names a Python file that defines the spec's entry. "
        "There is none at that path.",
    ),
    "GEN0201": (
        "entry not found in the model file",
        _INVALID,
        "`model.entry` in the spec names a callable of the model file that returns the module; "
        "the default is `build`. The file defines no such name.",
    ),
    "GEN0202": (
        "the model's own code raised",
        _FAIL,
        "Importing the model file, calling its entry or running its forward raised an exception. "
        "The place is the innermost line of your file; mend the model there. Running the same "
        "call in Python shows the whole traceback.",
    ),
    "GEN0203": (
        "entry returned no module",
        _INVALID,
        "The entry must return a `torch.nn.Module` that is ready to run.",
    ),
    "GEN0204": (
        "entry does not take the spec's arguments",
        _INVALID,
        "`model.args` in the spec is passed to the entry as keyword arguments; one is unknown or "
        "missing.",
    ),
    "GEN0205": (
        "model on the meta device",
        _FAIL,
        "Tensors on the meta device have a shape and no values, so there is nothing to compile "
        "into a plan. Build the model on the CPU, or call to_empty() and load weights.",
    ),
    "GEN0206": (
        "spec inputs and forward's parameters differ",
        _INVALID,
        "Inputs in the spec carry the parameter names of the model's forward. One is unknown to "
        "forward, or forward needs one that the spec does not give.",
    ),
    "GEN0207": (
        "placement names a module that does not exist",
        _INVALID,
        "`placement.stages[].modules` lists dotted module paths as `model.named_modules()` "
        "prints them.",
    ),
    "GEN0210": (
        "weights file named by the spec is missing",
        _INVALID,
        "`model.weights` is a path to a safetensors file, relative to the spec.",
    ),
    "GEN0211": (
        "weights file unreadable",
        _INVALID,
        "`model.weights` must be a sound safetensors file. Pickled checkpoints are not read: "
        "convert them once with safetensors.torch.save_file.",
    ),
    "GEN0212": (
        "weights do not fit the model",
        _INVALID,
        "Names, shapes and dtypes of the weights file and of the model's state_dict must agree. "
        "Most often the model was built with other arguments than it was trained with.",
    ),
    "GEN0220": (
        "control flow depends on data",
        _FAIL,
        "A Python `if`, `while`, `int()` or `.item()` looks at the value of a tensor, so there is "
        "no one graph to capture. Compute both sides and choose with torch.where, or move the "
        "decision out of the model.",
    ),
    "GEN0221": (
        "dimension is fixed by the model",
        _FAIL,
        "The spec says that a dimension varies, but the model's code only works for one size or "
        "for a narrower range. Fix the size in the spec's shape, or mend the code that depends "
        "on it.",
    ),
    "GEN0222": (
        "model cannot be exported",
        _FAIL,
        "torch.export could not trace the forward. The cause is torch's own text; the place is "
        "the innermost line of your file.",
    ),
    "GEN0223": (
        "operator not supported",
        _FAIL,
        "The model calls an operator that plans do not carry: it is not on the allow-list, or "
        "returns something else than tensors.",
    ),
    "GEN0224": (
        "model changes a constant that is none of its buffers",
        _FAIL,
        "Running the forward writes to a tensor that export lifted out of the code: a global, or "
        "an attribute that is no registered buffer, such as a cache in an object of its own. The "
        "change would be lost in silence. Register the tensor as a buffer: a plan hands the new "
        "value of a buffer back as the output `updated.<buffer>`. Or return the value yourself.",
    ),
    "GEN0225": (
        "model draws random numbers",
        _FAIL,
        "An operator of the forward is random, such as dropout in training mode, so that a retry "
        "would give another result. Call `.eval()` in the entry, take the noise as an input, or "
        "write `random: seeded` in the spec: the plan then takes a seed with each run, as its "
        "input `rng.seed`.",
    ),
    "GEN0226": (
        "size depends on data",
        _FAIL,
        "A tensor's size follows from the values of another (nonzero, boolean masks, unique). A "
        "plan holds such tensors where the most that the size can be is known, from the operator "
        "or from `torch._check(y.shape[0] <= 100)`, on one device, and returns those with one such "
        "dimension. Use torch.where or a fixed-size variant (topk, one-hot) elsewhere.",
    ),
    "GEN0227": (
        "model has no output",
        _FAIL,
        "The forward returns nothing, so there is nothing to compute.",
    ),
    "GEN0228": (
        "capture process died",
        _FAIL,
        "The child process that imports and captures the model ended without an answer: it ran "
        "out of memory, crashed in native code or was killed. Its last output is shown.",
    ),
    "GEN0229": (
        "model holds NaN, or an infinite factor",
        _FAIL,
        "A parameter or buffer of the model is not a number in places, so that what is computed "
        "from it is not a number either; or it is infinite and multiplied with, which gives NaN "
        "wherever the other factor is zero. It usually comes from a calibration or from "
        "running statistics over no data, from a scale that was divided by zero, or from a "
        "checkpoint of a training that diverged. Mend it in the entry, or load other weights.",
    ),
    "GEN0230": (
        "model changes a tensor that shares memory with another",
        _FAIL,
        "Two buffers or parameters of the model are views of one memory, and the forward writes "
        "to one of them. A plan holds each tensor of the model for itself, so that the other one "
        "would keep its old value. Register the whole tensor alone and take the view of it in the "
        "forward.",
    ),
    # -- language models with a cache: GEN0240 to GEN0249 --
    "GEN0240": (
        "spec gives no inputs, and the model is no language model with a cache",
        _INVALID,
        "Inputs may be left out for a causal language model whose forward works with a key-value "
        "cache: prefill, decode and generate are compiled then. Any other module needs them: their "
        "names are forward's parameters, their shapes cannot be guessed.",
    ),
    "GEN0241": (
        "model follows no cache interface",
        _FAIL,
        "prefill and decode need a forward that takes a cache: that of a transformers causal "
        "language model, or the short protocol that docs/llm.md describes. The model has neither, "
        "or it keeps a state that is no cache of keys and values.",
    ),
    "GEN0242": (
        "cache longer than the model's positions",
        _INVALID,
        "A model with positions of its own tells only so many apart. `llm.max_cache_len` counts "
        "the prompt and all generated tokens, and is no more than that.",
    ),
    "GEN0243": (
        "cached results differ from the forward's",
        _FAIL,
        "Before a language model is compiled, a few tokens are computed with the cache and without "
        "it, for prompts of unequal lengths. They differ: the model does something with positions, "
        "masks or the cache that a cache of fixed length does not carry. A plan of it would "
        "generate other tokens than the model does.",
    ),
    "GEN0244": (
        "placement splits a layer's cache",
        _INVALID,
        "A layer's keys and values lie on the device where its attention runs. The stages of the "
        "spec give parts of one attention to different devices, so that the cache would travel "
        "with every token. Name whole layers, or whole attention modules, in one stage.",
    ),
    # -- the lazy device: GEN0260 to GEN0269 --
    "GEN0260": (
        "a tensor on the lazy device was lost",
        _FAIL,
        "The run that was to compute the tensor failed, and its error said why. Compute it again "
        "from tensors that are still there.",
    ),
    "GEN0261": (
        "a program on the lazy device does what no plan can hold",
        _FAIL,
        "An operator, dtype or layout that plans do not have. Move this part of the program to the "
        "CPU: `x.cpu()` before it and `.to('genie')` behind it.",
    ),
    "GEN0262": (
        "the lazy device is not installed",
        _FAIL,
        "Its extension links torch and is built for one version of it, where torch is installed "
        "before Genie. Install torch, then Genie again with `--no-build-isolation`.",
    ),
    "GEN0263": (
        "the lazy device is connected already",
        _FAIL,
        "A program's tensors lie in one session. `genie.lazy.connect` chooses it before the first "
        "tensor goes to the device.",
    ),
    "GEN0264": (
        "the lazy device's recorder is unknown",
        _FAIL,
        "GENIE_LAZY_RECORDER chooses what records a program's operators: `native` (the extension), "
        "`python`, or `auto` (the extension where it is installed). Set it to one of them, or "
        "leave it out.",
    ),
}
