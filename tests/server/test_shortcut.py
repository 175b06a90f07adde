"""Outputs that containers send straight to the client of a private server: which they may, and what is left to do."""

import pytest

from upswell.spec import MAP_WINDOW, AutoscalerSettings, CallKind
from upswell.wire import messages as m

from .stage import Stage, record, stage

ONE = record("f", settings=AutoscalerSettings(max_containers=1))


async def submit(here: Stage, call: str, kind: CallKind, first: int = 0, count: int = 1) -> None:
    await here.client.send(m.Submit(call, "ap-1/f", kind, first, count, kind != "map"), payload=b"in")


def delivered(assign: m.Assign) -> m.Results:
    count = assign.stop - assign.start
    return m.Results(assign.range, assign.start, count, 0.001 * count, 0.0, delivered=True)


@pytest.mark.parametrize("kind", ["remote", "map", "spawn", "generator"])
async def test_it_is_for_calls_that_the_first_client_waits_for(kind: CallKind) -> None:
    async with stage(has_shortcut=True) as here:
        await here.client.send(m.OpenApp("ap-1", "app", [ONE]))
        await submit(here, "fc-1", kind)
        container = await here.container(await here.started("ap-1/f"))
        assign, _ = await container.expect(m.Assign)
        assert assign.may_deliver == (kind in ("remote", "map"))


async def test_it_is_not_for_calls_of_others() -> None:
    async with stage(has_shortcut=True) as here:
        await here.client.send(m.OpenApp("ap-1", "app", [ONE]))
        await submit(here, "fc-1", "remote")
        name = await here.started("ap-1/f")
        container = await here.container(name)
        first, _ = await container.expect(m.Assign)
        inside = await here.client_inside(name)
        await inside.send(m.Submit("fc-2", "ap-1/f", "remote", 0, 1, True), payload=b"in")
        await container.send(delivered(first))
        assign, _ = await container.expect(m.Assign)
        assert (assign.call, assign.may_deliver) == ("fc-2", False)


async def test_what_is_delivered_is_not_sent_again_and_lets_the_next_segment_in() -> None:
    async with stage(has_shortcut=True) as here:
        await here.client.send(m.OpenApp("ap-1", "app", [ONE]))
        for first in (0, MAP_WINDOW):
            await submit(here, "fc-1", "map", first, MAP_WINDOW)
        await here.client.send(m.EndInputs("fc-1", 2 * MAP_WINDOW))
        container = await here.container(await here.started("ap-1/f"))
        while True:
            assign, _ = await container.expect(m.Assign)
            await container.send(delivered(assign))
            if assign.stop == 2 * MAP_WINDOW:
                break
        await here.until(lambda: not here.server._services.dispatcher.calls)
        await submit(here, "fc-2", "remote")
        assign, _ = await container.expect(m.Assign)
        await container.send(m.Results(assign.range, 0, 1, 0.0, 0.0), payload=b"out")
        outputs, payload = await here.client.expect(m.Outputs)
        assert (outputs.call, bytes(payload)) == ("fc-2", b"out")


async def test_who_says_that_it_has_delivered_where_there_is_no_shortcut_is_sent_away() -> None:
    async with stage() as here:
        await here.client.send(m.OpenApp("ap-1", "app", [ONE]))
        await submit(here, "fc-1", "remote")
        container = await here.container(await here.started("ap-1/f"))
        assign, _ = await container.expect(m.Assign)
        assert not assign.may_deliver
        await container.send(delivered(assign))
        assert "outputs are delivered" in await container.dismissed()
