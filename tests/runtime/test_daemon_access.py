"""Who may connect to genied: tokens, TLS, certificates."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from genie.client import connect
from genie.client.admin import status
from genie.client.channel import Channel, Credentials
from genie_runtime import auth, endpoint
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from tests.daemons import Daemons
from tests.plans_by_hand import expected, two_layers
from tests.runtime.lm import PROMPTS
from tests.runtime.lm import wanted as wanted_tokens
from tests.runtime.support import X, one_thread
from tests.tiny_lm import padded, tiny_lm


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_loopback_asks_for_the_users_token(daemons: Daemons, home: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    daemon = daemons.start(listen=address)
    token = home / "config" / "genie" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert status(address).sessions == 0
    made = two_layers(home)
    with connect(address) as session:
        session.install(made.path)
        result = session.run({"x": X})
        assert result.transports == {"client->d0": "tcp"}
    wrong = home / "wrong"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    for call in (lambda: connect(address, token_file=wrong), lambda: status(address, None, wrong)):
        with pytest.raises(GenieError) as caught:
            call()
        assert caught.value.code == "GEN0521"
        assert caught.value.exit_code == 6
    forged = Channel(endpoint.parse(address), Credentials(token_file=wrong))
    asked = m.TokensRequest(session="0" * 32, run="0" * 32, after=0)
    with forged.stream("Tokens", asked) as stream, pytest.raises(GenieError) as caught:
        next(iter(stream))
    assert caught.value.code == "GEN0521"
    forged.close()
    token.unlink()
    with pytest.raises(GenieError) as caught:
        connect(address)
    assert caught.value.code == "GEN0521"
    wrong.chmod(0o644)
    with pytest.raises(GenieError) as caught:
        connect(address, token_file=wrong)
    assert caught.value.code == "GEN0523"
    assert "0" * 64 not in daemon.log


def test_two_daemons_with_tls(daemons: Daemons, tmp_path: Path) -> None:
    folder, strange = tmp_path / "auth", tmp_path / "strange"
    auth.init(folder, ["127.0.0.1"])
    auth.init(strange, ["127.0.0.1"])
    options = ["--tls-dir", str(folder), "--token-file", str(folder / "token")]
    ports = [free_port(), free_port()]
    made = two_layers(tmp_path, devices=2)
    ends = []
    for n, port in enumerate(ports):
        listen = f"0.0.0.0:{port}" if n else f"127.0.0.1:{port}"
        peers = ["--peer-listen", "127.0.0.1:0"] if n else []
        daemons.start(f"d{n}", *options, *peers, listen=listen)
        ends.append(f"127.0.0.1:{port}")
    token = folder / "token"
    with connect(ends, tls_dir=folder, token_file=token) as session:
        session.install(made.path)
        result = session.run({"x": X}, run_id="run-1")
        assert set(result.transports.values()) == {"tcp"}
        lm = tiny_lm(tmp_path, devices=2)
        session.install(lm.path)
        generated = session.generate(padded(PROMPTS), max_new_tokens=8)
        assert generated.outputs["tokens"].tolist() == wanted_tokens(lm, 8)
        assert generated.transports["d1->d0"] == "tcp"
    wanted = one_thread(lambda: expected(made, X))
    assert result.outputs["y"].tobytes() == wanted["y"].tobytes()
    # Another CA's client, no TLS at all, an older TLS: none gets in.
    for where in (strange, None):
        with pytest.raises(GenieError) as caught:
            connect(ends[0], tls_dir=where, token_file=token)
        assert caught.value.code == "GEN0522"
        assert caught.value.exit_code == 6
    with pytest.raises(GenieError) as caught:
        connect(ends[0], tls_dir=folder, token_file=strange / "token")
    assert caught.value.code == "GEN0521"
    assert _tls(folder, ports[0], "TLSv1.3")
    assert not _tls(folder, ports[0], "TLSv1.2")


def _tls(folder: Path, port: int, version: str) -> bool:
    """Whether a client with our certificate gets a connection with this version of TLS alone."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    wanted = ssl.TLSVersion.TLSv1_3 if version == "TLSv1.3" else ssl.TLSVersion.TLSv1_2
    context.minimum_version = context.maximum_version = wanted
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as secured:
                return secured.version() == version
        except (ssl.SSLError, ConnectionResetError):
            return False
