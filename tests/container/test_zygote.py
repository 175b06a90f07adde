"""What a zygote does in a turn of its loop, without a fork."""

import os
import selectors
import socket

from upswell.container.control import Seed
from upswell.container.zygote import Zygote
from upswell.spec import Environment

NOTHING = Environment(kind="module", origin="", module="", main=False, sys_path=(), directory="/")


def test_a_descriptor_that_was_another_one_when_it_was_ready() -> None:
    """As when a container has ended and another one was born, whose pipe has the number of what the first wrote to."""
    engine, control = socket.socketpair()
    zygote, heard = Zygote(control, Seed(NOTHING)), list[str]()
    waking, ended, born = os.pipe(), os.pipe(), os.pipe()

    def replace() -> None:
        zygote._selector.unregister(ended[0])
        os.dup2(born[0], ended[0])
        zygote._selector.register(ended[0], selectors.EVENT_READ, lambda: heard.append("born"))

    zygote._selector.register(waking[0], selectors.EVENT_READ, replace)
    zygote._selector.register(ended[0], selectors.EVENT_READ, lambda: heard.append("ended"))
    for pipe in (waking, ended):
        os.write(pipe[1], b".")
    ready = zygote._selector.select(0)
    assert [key.fd for key, _ in ready] == [waking[0], ended[0]]
    zygote._attend_to(ready)
    assert heard == []
    os.write(born[1], b".")
    zygote._attend_to([one for one in zygote._selector.select(0) if one[0].fd == ended[0]])
    assert heard == ["born"]
    zygote._selector.close()
    for descriptor in (*waking, *ended, *born):
        os.close(descriptor)
    engine.close()
    control.close()
