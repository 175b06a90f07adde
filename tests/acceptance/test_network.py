"""Programs whose server is elsewhere: over TLS, with a certificate that is checked and a token that has a scope."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from upswell.wire import messages as m
from upswell.wire import tls
from upswell.wire.channel import dial
from upswell.wire.network import RemoteChannel

from .homes import Home, certificate
from .processes import SECONDS_TO_RUN, UPSWELL, Program, until

SQUARES = """
    import upswell

    app = upswell.App("squares")


    @app.function()
    def square(x):
        return x * x


    @app.local_entrypoint()
    def main():
        print(sum(square.map(range(1000))))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, dict[str, str]]]:
    """A server that listens with TLS, and the variables with which a program on another machine would reach it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    server = Home(Program(folder), folder / "kept")
    chain, key = certificate(folder, "IP:127.0.0.1", "DNS:localhost")
    with server.served("--listen", "127.0.0.1:0", "--tls-cert", str(chain), "--tls-key", str(key)) as status:
        yield server, {"UPSWELL_SERVER": status["addresses"][1], "UPSWELL_CA": str(chain)}
    server.clear()


@pytest.fixture
def remote(elsewhere: tuple[Home, dict[str, str]]) -> dict[str, str]:
    """The same, with a token that is good for everything."""
    server, variables = elsewhere
    return {**variables, "UPSWELL_TOKEN": server.token()}


@pytest.fixture
def tokens(elsewhere: tuple[Home, dict[str, str]]) -> Home:
    """Where the server's tokens are made."""
    return elsewhere[0]


def test_a_program_runs_elsewhere(home: Home, remote: dict[str, str]) -> None:
    assert remote["UPSWELL_SERVER"].startswith("tls://127.0.0.1:")
    home.program.write(SQUARES)
    done = home.upswell("run", "program.py", **remote)
    assert (done.out, done.err) == ("332833500\n", "")


def test_the_server_is_named_by_the_configuration(home: Home, remote: dict[str, str]) -> None:
    home.program.write(SQUARES)
    mine = Home(home.program, home.program.folder / "kept.mine")
    mine.path.mkdir(0o700)
    port = remote["UPSWELL_SERVER"].rpartition(":")[2]
    lines = (f'server = "tls://localhost:{port}"', f'token = "{remote["UPSWELL_TOKEN"]}"', 'ca = "server.pem"')
    (mine.path / "config.toml").write_text("\n".join(lines))
    (mine.path / "server.pem").write_bytes(Path(remote["UPSWELL_CA"]).read_bytes())
    assert mine.upswell("run", "program.py").out == "332833500\n"
    status = mine.upswell("server", "status", "--json")
    assert status.status == 0 and '"running": true' in status.out
    # The token is for that server, and is not shown to another.
    other = mine.upswell("run", "program.py", UPSWELL_SERVER=remote["UPSWELL_SERVER"])
    assert other.status == 1 and "AuthError" in other.err


def test_large_arrays_go_there_and_back(home: Home, remote: dict[str, str]) -> None:
    home.program.write(
        """
        import numpy
        import upswell

        app = upswell.App("arrays")


        @app.function()
        def double(x):
            return 2 * x


        @app.function()
        def parts(x):
            yield x[:1_000_000]
            yield x[1_000_000:]


        @app.local_entrypoint()
        def main():
            large = numpy.arange(8_000_000, dtype=numpy.float64)
            assert (double.remote(large) == 2 * large).all()
            for index, out in enumerate(double.map([large[: 50_000 * n] for n in range(20)])):
                assert len(out) == 50_000 * index and (out == 2 * large[: len(out)]).all()
            assert sum(map(len, parts.remote_gen(large))) == len(large)
            call = double.spawn(large)
            assert (call.get() == 2 * large).all()
            print("as they were")
        """
    )
    assert home.upswell("run", "program.py", **remote).out == "as they were\n"


@pytest.mark.parametrize("token", ["", "tk-none.abc", "nonsense"])
def test_a_token_that_is_not_good(home: Home, remote: dict[str, str], token: str) -> None:
    home.program.write(SQUARES)
    done = home.upswell("run", "program.py", **{**remote, "UPSWELL_TOKEN": token})
    assert done.status == 1
    why = "the token is not valid here" if token else "it shows no token"
    words = f"the server does not let this program in: {why}"
    assert f"AuthError: {words}" in done.err
    listed = home.upswell("app", "list", **{**remote, "UPSWELL_TOKEN": token})
    assert (listed.status, listed.err) == (1, f"upswell: {words} (UPSWELL_TOKEN)\n")


def test_a_token_that_is_expired(home: Home, tokens: Home, remote: dict[str, str]) -> None:
    home.program.write(SQUARES)
    token = tokens.token("--expires", "0.00001")
    assert until(lambda: "expired" in tokens.upswell("server", "token", "list").out)
    done = home.upswell("run", "program.py", **{**remote, "UPSWELL_TOKEN": token})
    assert done.status == 1 and "AuthError" in done.err


def test_a_token_that_only_reads(home: Home, tokens: Home, remote: dict[str, str]) -> None:
    home.program.write(SQUARES)
    reader = {**remote, "UPSWELL_TOKEN": tokens.token("--scope", "read", "--name", "dashboard")}
    done = home.upswell("run", "program.py", **reader)
    assert done.status == 1 and "PermissionDeniedError: a token of scope 'read' may not deploy" in done.err
    assert home.upswell("server", "status", **reader).status == 0
    listed = tokens.upswell("server", "token", "list").out
    assert "dashboard" in listed and "read" in listed and reader["UPSWELL_TOKEN"].partition(".")[2] not in listed


def test_a_token_that_is_revoked_meanwhile(home: Home, tokens: Home, remote: dict[str, str]) -> None:
    home.program.write(
        """
        import os
        import time

        import upswell

        app = upswell.App("sleeper")


        @app.function()
        def sleep(begun):
            open(begun, "w").close()
            time.sleep(60)


        @app.local_entrypoint()
        def main():
            try:
                sleep.remote(os.path.abspath("kept.begun"))
            except upswell.exception.AuthError as error:
                print(error)
        """
    )
    run = home.popen(*UPSWELL, "run", "-q", "program.py", **remote)
    assert until((home.program.folder / "kept.begun").exists)
    revoked = tokens.upswell("server", "token", "revoke", remote["UPSWELL_TOKEN"].partition(".")[0])
    assert "opens nothing any more" in revoked.out
    out, err = run.communicate(timeout=SECONDS_TO_RUN)
    assert "the token is not valid here any more" in out, err
    again = tokens.upswell("server", "token", "revoke", "tk-none")
    assert again.status == 1 and "there is no token tk-none" in again.err


def test_a_certificate_that_is_not_trusted(home: Home, remote: dict[str, str]) -> None:
    home.program.write(SQUARES)
    done = home.upswell("run", "program.py", **{**remote, "UPSWELL_CA": ""})
    assert done.status == 1 and "no server is trusted at tls://127.0.0.1" in done.err and "UPSWELL_CA=FILE" in done.err
    missing = home.upswell("run", "program.py", **{**remote, "UPSWELL_CA": "/none.pem"})
    assert "the certificates in /none.pem (UPSWELL_CA) can't be read" in missing.err


def test_a_certificate_of_another_name(home: Home) -> None:
    chain, key = certificate(home.program.folder, "DNS:elsewhere.example")
    with home.served("--listen", "127.0.0.1:0", "--tls-cert", str(chain), "--tls-key", str(key)) as status:
        home.program.write(SQUARES)
        found = {"UPSWELL_SERVER": status["addresses"][1], "UPSWELL_CA": str(chain), "UPSWELL_TOKEN": home.token()}
        done = home.upswell("run", "program.py", **found)
        assert done.status == 1 and "127.0.0.1" in done.err and "is not trusted here" in done.err


def test_beyond_this_machine_a_token_comes_first(home: Home) -> None:
    chain, key = certificate(home.program.folder, "DNS:localhost")
    options = ("--listen", "0.0.0.0:0", "--tls-cert", str(chain), "--tls-key", str(key))
    refused = home.upswell("server", "start", *options)
    assert refused.status == 1 and "upswell server token create" in refused.err
    home.token()
    with home.served(*options) as status:
        assert status["addresses"][1].startswith("tls://0.0.0.0:")


def test_who_does_not_shake_hands_is_sent_away(remote: dict[str, str]) -> None:
    host, _, port = remote["UPSWELL_SERVER"].removeprefix("tls://").rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS_TO_RUN) as silent:
        assert silent.recv(1) == b""  # after HELLO_SECONDS
    with socket.create_connection((host, int(port)), SECONDS_TO_RUN) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"HTTP" not in plain.recv(1 << 10)
    channel = dial(remote["UPSWELL_SERVER"], ca=remote["UPSWELL_CA"])
    channel.send(m.Hello(m.PROTOCOL, "client", remote["UPSWELL_TOKEN"], 1))
    assert isinstance(channel.receive()[0][0], m.Welcome)
    channel.close()


def test_tls_and_plain_tcp_are_told_apart(home: Home, remote: dict[str, str]) -> None:
    home.program.write(SQUARES)
    plain = remote["UPSWELL_SERVER"].replace("tls:", "tcp:")
    words = f"who listens at {plain} speaks TLS: the address is {remote['UPSWELL_SERVER']}\n"
    run = home.upswell("run", "program.py", **{**remote, "UPSWELL_SERVER": plain})
    assert (run.status, run.out) == (1, "") and run.err.endswith(words)
    status = home.upswell("server", "status", **{**remote, "UPSWELL_SERVER": plain})
    assert (status.status, status.out) == (3, words)
    other = Home(home.program, home.program.folder / "plain")
    with other.served("--listen", "127.0.0.1:0") as there:
        secured = there["addresses"][1].replace("tcp:", "tls:")
        told = other.upswell("server", "status", UPSWELL_SERVER=secured, UPSWELL_CA=remote["UPSWELL_CA"])
        assert (told.status, told.err) == (3, "")
        assert told.out.startswith(f"no server is trusted at {secured}: who listens there speaks no TLS")
        log = (other.path / "server.log").read_text()
        assert "the first frame has more than" in log and "no Hello within" not in log


def test_a_stream_is_read_and_written_at_once(tmp_path: Path) -> None:
    """Both directions are full at the same moment, from two threads: what an `SSLSocket` is not made for."""
    chain, key = certificate(tmp_path, "DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    count, payload = 200, bytes(range(256)) * 512
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as stream:
                while data := stream.recv(1 << 16):
                    stream.sendall(data)

        server = threading.Thread(target=echo)
        server.start()
        channel = dial(f"tls://localhost:{listener.getsockname()[1]}", ca=str(chain))
        assert isinstance(channel, RemoteChannel)
        received: list[bytes] = []

        def read() -> None:
            while len(received) < count:
                received.extend(bytes(payload) for _, payload in channel.receive())

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(count):
            channel.send(m.Returned(number, 0), payload)
        reader.join(SECONDS_TO_RUN)
        channel.shutdown()
        channel.close()
        server.join(SECONDS_TO_RUN)
    assert received == [payload] * count


def test_what_is_collected_in_the_midst_of_a_read_may_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As outputs do that nobody refers to any more, in whichever thread the garbage collector runs."""
    chain, key = certificate(tmp_path, "DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []

    def answer() -> None:
        with context.wrap_socket(theirs, server_side=True) as stream:
            stream.sendall(b"read me")
            heard.append(stream.recv(100))

    server = threading.Thread(target=answer)
    server.start()
    stream = tls.secure(ours, "localhost", str(chain))

    def collect(_: object, count: int) -> int:
        stream.sendall(b"collected")
        return count

    monkeypatch.setattr(tls, "cast", collect)  # called by who reads, in the midst of that
    threading.Thread(target=stream.recv, args=(100,), daemon=True).start()
    server.join(5)
    stream.shutdown(socket.SHUT_RDWR)
    server.join()
    stream.close()
    assert heard == [b"collected"]
