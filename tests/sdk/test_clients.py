"""The connection of a program, which its apps share: made when the first needs it, ended when the last has left."""

import subprocess
import sys
import time

import pytest

from upswell.sdk import clients
from upswell.sdk.client import Client, new_id


def test_who_joins_as_the_last_one_leaves_has_a_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = clients.join_client()
    look = clients.get_client

    def left_meanwhile() -> Client:
        """Another thread leaves between the look and what follows it."""
        client = look()
        monkeypatch.setattr(clients, "get_client", look)
        clients.leave_client()
        return client

    monkeypatch.setattr(clients, "get_client", left_meanwhile)
    joined = clients.join_client()
    try:
        assert joined is not first and joined.users == 1
        joined.open_inbox("fc-1").take()  # raises where the connection is lost
    finally:
        clients.leave_client()


FORKS = """
import asyncio, os
from upswell.sdk.pump import background_loop

async def one():
    return 1

def ask():
    return asyncio.run_coroutine_threadsafe(one(), background_loop()).result(timeout=30)

ask()
child = os.fork()
if not child:
    os._exit(0 if ask() == 1 else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_has_a_background_loop_of_its_own() -> None:
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def test_ids_are_in_the_order_in_which_they_were_made() -> None:
    made = [new_id("fc")]
    while len(made) < 20:
        then = time.time_ns()
        while time.time_ns() < then + 1_100_000:
            pass
        made.append(new_id("fc"))
    assert made == sorted(made)
    assert len({new_id("fc") for _ in range(10_000)}) == 10_000
