"""Language models that generate: tokens in, causal attention, scores of the vocabulary out."""

from __future__ import annotations

from collections.abc import Sequence

from genie.semantics.match import Clue, Facts, Match, Part, answer
from genie.semantics.operators import LAYOUT, PRODUCT
from genie.semantics.patterns.transformer import after_first, blocks_of, stack_parts
from genie.semantics.structure import Structure, Tensor

__all__ = ["LanguageModel", "vocabulary_head"]


class LanguageModel:
    """Decoder-only models, and encoder-decoders whose decoder is one."""

    name = "llm"

    def match(self, facts: Facts) -> Match | None:
        """Needs token lookups, causal attention over them, and an output over the vocabulary."""
        s, signals = facts.structure, facts.signals
        text = signals.of("text")
        tables = {look.rows for look in signals.lookups if look.source in text}
        causal = [a for a in facts.attentions if a.causal]
        cached = [a for a in facts.attentions if a.cached]
        head = vocabulary_head(s, tables)
        # Ids of places or of segments may index tables of their own.
        alone = all(not s.tensors[s.inputs[p]].floating for p in signals.of("tabular"))
        clues = [
            Clue("token ids index a table of embeddings", bool(text), needed=True),
            Clue(
                "attention is causal, or reads a cache",
                bool(causal or cached),
                2.0,
                needed=True,
            ),
            Clue("an output has a score for each row of the token table", head, 2.0, needed=True),
            Clue(
                "nothing but text comes in",
                alone and not signals.mask("vision", "audio"),
                1.0,
                True,
            ),
            Clue("layers of attention and feed-forward parts alternate", _layers(facts)),
        ]
        if not text:
            return answer("llm", clues)
        return answer("llm", clues, self.parts(facts, text), {"encoder": "encode"})

    def parts(self, facts: Facts, text: Sequence[int]) -> list[Part]:
        """Regions of the decoder, and of the encoder where there is one."""
        reach = facts.signals.reach
        causal = [a for a in facts.attentions if a.causal or a.cached]
        decoding = reach[causal[0].call] if causal else sum(1 << p for p in text)
        if len(text) > 1 and causal:
            decoder = [n for n, mask in enumerate(reach) if mask & decoding]
            encoder = [n for n, mask in enumerate(reach) if mask and not mask & decoding]
            decoder, encoder = after_first(decoder, encoder)
        else:
            decoder, encoder = [n for n, mask in enumerate(reach) if mask], []
        parts: list[Part] = []
        number = 0
        for calls, head, name in ((encoder, "mlp", "encoder"), (decoder, "lm_head", "decoder")):
            if calls:
                stack = blocks_of(facts, calls)
                parts += stack_parts(facts, stack, number, head, name)
                number += len(stack.blocks)
        return parts


def vocabulary_head(s: Structure, rows: set[int]) -> bool:
    """Whether a product's result, as long as a token table has rows, becomes an output.

    So do the ids of its greatest elements, where the program chose them.
    """
    for number in s.outputs:
        tensor = s.tensors[number] if s.tensors[number].floating else _chosen_from(s, number)
        if tensor is None or not tensor.shape or tensor.shape[-1] not in rows or tensor.rank < 2:
            continue
        for _ in range(16):
            maker = tensor.call
            if maker is None:
                break
            call = s.calls[maker]
            if call.name == "linear" or call.name in PRODUCT:
                return True
            follow = [n for n in call.reads if s.tensors[n].origin == "result"]
            easy = LAYOUT | {"tanh", "mul", "div", "add", "log_softmax", "softmax", "_log_softmax"}
            if not follow or call.name not in easy:
                break
            tensor = s.tensors[follow[0]]
    return False


def _chosen_from(s: Structure, number: int) -> Tensor | None:
    """The scores that ids are the greatest of, where the tokens so far may stand before them."""
    tensor = s.tensors[number]
    for _ in range(16):
        if tensor.call is None:
            break
        call = s.calls[tensor.call]
        made = [n for n in call.reads if s.tensors[n].origin == "result"]
        if not made:
            break
        tensor = s.tensors[made[-1]]
        if call.name == "argmax":
            return tensor
        if call.name not in LAYOUT:
            break
    return None


def _layers(facts: Facts) -> bool:
    reach = facts.signals.reach
    stack = blocks_of(facts, [n for n, mask in enumerate(reach) if mask])
    return sum(1 for b in stack.blocks if b.kind == "attention") >= 1
