"""Requests about loops and state that no client of ours makes: refused, and nothing stays held."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import pytest

from genie.client import Session, connect
from genie.client.channel import Stream
from genie.client.opening import hello
from genie.client.remote import RemoteLink
from genie_runtime.tokens import MAX_READERS
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from tests.daemons import until
from tests.runtime.lm import PROMPTS, Pair, held
from tests.runtime.support import link
from tests.tiny_lm import padded, tiny_lm

STRANGE = "0" * 32
PLAIN = m.GenerationRequest(
    max_new_tokens=4, temperature="0x0.0p+0", top_k=0, top_p="0x1.0000000000000p+0", seed="0"
)


def changed(**values: Any) -> m.GenerationRequest:
    return PLAIN.model_copy(update=values)


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "how to sample is not said": ("GEN0509", "generate", {}),
    "nothing is sampled": ("GEN0509", "prefill", {"generation": PLAIN}),
    "a loop in a sequence": (
        "GEN0509",
        "generate",
        {"generation": PLAIN, "state": m.StateRequest(sequence=STRANGE, version=0)},
    ),
    "no such state": ("GEN0475", "decode", {"state": m.StateRequest(sequence=STRANGE, version=3)}),
    "more than the cache": ("GEN0479", "generate", {"generation": changed(max_new_tokens=10**9)}),
    "no probability": ("GEN0480", "generate", {"generation": changed(top_p="0x0.0p+0")}),
    "endless heat": ("GEN0480", "generate", {"generation": changed(temperature="0x1.0p+9999")}),
    "another batch": ("GEN0480", "generate", {"generation": changed(forced=[[1]])}),
    "ragged tokens": ("GEN0480", "generate", {"generation": changed(forced=[[1], [1, 2]])}),
    "nothing left": ("GEN0480", "generate", {"generation": changed(forced=[[1] * 4] * 2)}),
    "huge tokens": ("GEN0509", "generate", {"generation": changed(forced=[[2**60]] * 2)}),
    "no float": ("GEN0509", "generate", {"generation": changed(top_p="0.5")}),
    "no seed": ("GEN0509", "generate", {"generation": changed(seed="-1")}),
    "a token below the end": ("GEN0509", "generate", {"generation": changed(forced=[[-2]] * 2)}),
}


def test_requests_that_lie_are_refused(pair: Pair, tmp_path: Path) -> None:
    made = tiny_lm(tmp_path)
    daemon = pair[0]
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        node = link(session)
        request = m.PrepareRequest(
            session=node.session,
            plan_digest=made.plan.plan_digest,
            entrypoint="generate",
            run_id="r",
            durable=False,
            dims={"batch": 2, "seq": 5},
            links={},
            wait_ms=1000,
            deadline_ms=10_000,
        )

        def prepare(entrypoint: str, **changes: Any) -> m.PrepareReply:
            wanted = request.model_copy(update={"entrypoint": entrypoint, **changes})
            return node.channel.call("Prepare", wanted, m.PrepareReply)

        for name, (code, entrypoint, changes) in CASES.items():
            with pytest.raises(GenieError) as caught:
                prepare(entrypoint, **changes)
            assert caught.value.code == code, name
        opening = m.OpenCallRequest(
            session=node.session,
            plan_digest=made.plan.plan_digest,
            entrypoint="decode",
            dims=request.dims,
            links={},
            reply={},
            outputs={},
        )
        with pytest.raises(GenieError) as caught:
            node.channel.call("OpenCall", opening, m.OpenCallReply)
        assert caught.value.code == "GEN0430"
        plain = prepare("prefill")
        for run, code in ((STRANGE, "GEN0416"), (str(plain.run), "GEN0416")):
            asked = m.TokensRequest(session=node.session, run=run, after=0)
            with node.channel.stream("Tokens", asked) as stream, pytest.raises(GenieError) as no:
                m.decode_reply(m.Empty, next(iter(stream)))
            assert no.value.code == code
        loop = prepare("generate", generation=PLAIN)
        begin = m.StartRequest(session=node.session, run=str(loop.run), outgoing={}, outputs={})
        node.channel.call("Start", begin, m.Empty)  # its inputs never come
        asked = m.TokensRequest(session=node.session, run=str(loop.run), after=0)
        streams = [node.channel.stream("Tokens", asked) for _ in range(MAX_READERS + 1)]
        refused: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        def read(stream: Stream) -> None:
            for data in stream:
                refused.put(data)

        threads = [threading.Thread(target=read, args=(stream,)) for stream in streams]
        for thread in threads:
            thread.start()
        with pytest.raises(GenieError) as caught:
            m.decode_reply(m.Empty, refused.get(timeout=10))
        assert caught.value.code == "GEN0511"
        node.channel.call(
            "Release", m.RunRequestId(session=node.session, run=str(loop.run)), m.Empty
        )
        for thread in threads:
            thread.join(10)
        assert refused.empty()
        given_up = m.RunRequestId(session=node.session, run=str(plain.run))
        node.channel.call("Release", given_up, m.Empty)
        node.drop_state(STRANGE)  # free already
        until(lambda: held(daemon) == (0, 0, 0))
        assert session.generate(padded(PROMPTS), max_new_tokens=2).attempts == 1


@pytest.mark.parametrize(
    ("older", "words"),
    [({"formats": ["1.0"]}, "plan format 1.1"), ({"protocol": "1.3"}, "speaks protocol 1.3")],
)
def test_older_daemons_refuse_clearly(
    older: dict[str, Any], words: str, pair: Pair, tmp_path: Path
) -> None:
    """What an older daemon answers to is what is bound with an older client."""
    made = tiny_lm(tmp_path)
    old = hello().model_copy(update=older)
    with Session([(None, RemoteLink(pair[0].endpoint, old))]) as session:
        with pytest.raises(GenieError, match=words) as caught:
            session.install(made.path)
            session.generate(padded(PROMPTS), max_new_tokens=2)
        assert (caught.value.code, caught.value.exit_code) == ("GEN0503", 8)
