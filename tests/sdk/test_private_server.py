"""The process of a private server: what it has of its program, and how it ends."""

import os
import select
from collections.abc import Iterator

import pytest

from upswell.sdk.private_server import PrivateServer

PATIENCE = 60.0


@pytest.fixture
def server() -> Iterator[PrivateServer]:
    one = PrivateServer()
    yield one
    one.socket.close()
    one.outputs.close()
    one.end(PATIENCE)


def is_child(server: PrivateServer) -> bool:
    try:
        os.waitid(os.P_PID, server._process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def test_it_has_none_of_the_descriptors_that_children_of_the_program_would_have() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    server = PrivateServer()
    os.close(writing)
    poller = select.poll()
    poller.register(reading, select.POLLIN)
    assert poller.poll(1000 * PATIENCE) == [(reading, select.POLLHUP)]  # nobody can write any more
    assert is_child(server)
    os.close(reading)
    server.socket.close()
    server.outputs.close()
    server.end(PATIENCE)


def test_it_ends_with_its_program_though_that_has_never_said_a_word(server: PrivateServer) -> None:
    server.socket.close()
    found = os.waitid(os.P_PID, server._process, os.WEXITED | os.WNOWAIT)
    assert found is not None and (found.si_code, found.si_status) == (os.CLD_EXITED, 0)
    server.end(PATIENCE)
    assert not is_child(server)


def test_it_is_killed_where_it_does_not_end_in_time(server: PrivateServer) -> None:
    server.end(0.0)  # it has not been told to
    assert not is_child(server)


def test_the_program_may_have_waited_for_it_itself(server: PrivateServer) -> None:
    server.socket.close()
    os.waitpid(server._process, 0)
    server.end(PATIENCE)
