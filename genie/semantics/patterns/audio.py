"""Speech: a front end over time, an encoder, perhaps a decoder that writes the transcript."""

from __future__ import annotations

from collections.abc import Sequence

from genie.semantics.layers import Layered
from genie.semantics.match import Clue, Facts, Match, Part, answer
from genie.semantics.operators import CONVOLUTION, PRODUCT, RECURRENT
from genie.semantics.patterns.llm import vocabulary_head
from genie.semantics.patterns.transformer import after_first, blocks_of

__all__ = ["Audio", "transcribes"]


class Audio:
    """Encoders of sound, and encoder-decoders from sound to text."""

    name = "audio"

    def match(self, facts: Facts) -> Match | None:
        """Needs sound, and attention or recurrence over its frames."""
        s, signals = facts.structure, facts.signals
        sound, text = signals.mask("audio"), signals.mask("text")
        heard = [n for n, mask in enumerate(signals.reach) if mask & sound and not mask & text]
        decoder = [n for n, mask in enumerate(signals.reach) if mask & text]
        decoder, heard = after_first(decoder, heard)
        stack = blocks_of(facts, heard)
        ordered = any(b.kind == "attention" for b in stack.blocks) or any(
            s.calls[n].name in RECURRENT for n in heard
        )
        speech = transcribes(facts)
        clues = [
            Clue("a signal in time that a strided front end takes", bool(sound), 2.0, needed=True),
            Clue("its frames are mixed by attention or recurrence", ordered, 1.0, needed=True),
            Clue(
                "no other modality, or the text is the decoder's own",
                not signals.mask("vision", "tabular") and (not text or speech),
                1.0,
                needed=True,
            ),
        ]
        if not sound:
            return answer("audio", clues)
        return answer("audio", clues, _parts(facts, stack, decoder), {"encoder": "encode"})


def transcribes(facts: Facts) -> bool:
    """Whether tokens only enter a causal decoder that attends to sound and scores words."""
    signals = facts.signals
    sound, text = signals.mask("audio"), signals.mask("text")
    if not sound or not text or signals.mask("vision"):
        return False
    rows = {look.rows for look in signals.lookups if 1 << look.source & text}
    reach = signals.reach
    own = [a for a in facts.attentions if reach[a.call] & text]
    causal = any(a.causal or a.cached for a in own)
    crossed = any(_crosses(facts, a.query_calls, a.key_calls, sound, text) for a in own)
    return causal and crossed and vocabulary_head(facts.structure, rows)


def _crosses(facts: Facts, query: int, keys: int, sound: int, text: int) -> bool:
    """Whether queries come of text and keys of sound alone."""
    reach = facts.signals.reach
    of_keys = [reach[n] for n in range(len(reach)) if keys >> n & 1]
    of_query = [reach[n] for n in range(len(reach)) if query >> n & 1]
    return (
        any(m & text for m in of_query)
        and any(m & sound for m in of_keys)
        and not any(m & text for m in of_keys)
    )


def _parts(facts: Facts, stack: Layered, decoder: Sequence[int]) -> list[Part]:
    s = facts.structure
    first = next((i for i, b in enumerate(stack.blocks) if _layer(facts, b.calls)), 0)
    blocks = stack.blocks
    front = [*stack.before, *(n for b in blocks[:first] for n in b.calls)]
    encoder = [n for b in blocks[first:] for n in b.calls]
    head: list[int] = []
    if decoder:
        encoder += stack.after
        last = max(
            (n for n in decoder if s.calls[n].name == "linear" or s.calls[n].name in PRODUCT),
            default=decoder[-1],
        )
        head = [n for n in decoder if n >= last]
    else:
        head = list(stack.after)
    said = [n for n in decoder if n not in set(head)]
    named = (("frontend", front), ("encoder", encoder), ("decoder", said), ("head", head))
    return [Part(role, tuple(calls)) for role, calls in named if calls]


def _layer(facts: Facts, calls: Sequence[int]) -> bool:
    """Whether a block is a layer of the encoder rather than a convolution of the front end."""
    s = facts.structure
    names = [s.calls[n].name for n in calls]
    cores = {a.call for a in facts.attentions}
    if any(n in cores for n in calls) or any(name in RECURRENT for name in names):
        return True
    return "linear" in names and not any(name in CONVOLUTION for name in names)
