"""What the client of a map sends ahead of the outputs waits for them, and for nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from upswell.server.model import Caller
from upswell.spec import MAP_WINDOW, AutoscalerSettings, Limits
from upswell.wire import messages as m

from .stage import Peer, Stage, record, stage

ONE = record("f", settings=AutoscalerSettings(max_containers=1))


@asynccontextmanager
async def mapping() -> AsyncIterator[tuple[Stage, Peer, m.Assign]]:
    """A map whose window is full, with a segment ahead, the container, and what that was given first."""
    async with stage() as here:
        await here.client.send(m.OpenApp("ap-1", "app", [ONE]))
        await submit(here, 0)
        await submit(here, MAP_WINDOW)
        container = await here.container(await here.started("ap-1/f"))
        yield here, container, (await container.expect(m.Assign))[0]


async def submit(here: Stage, first: int, count: int = MAP_WINDOW) -> None:
    await here.client.send(m.Submit("fc-1", "ap-1/f", "map", first, count, False), payload=b"in")


def caller(here: Stage) -> Caller:
    return here.server._services.dispatcher.calls["fc-1"]


async def run(container: Peer, assign: m.Assign) -> None:
    count = assign.stop - assign.start
    await container.send(m.Results(assign.range, assign.start, count, 0.001 * count, 0.0), payload=b"out")


async def test_it_is_let_in_as_soon_as_the_outputs_have_left() -> None:
    async with mapping() as (here, container, assign):
        assert (caller(here).accepted, caller(here).offered) == (MAP_WINDOW, 2 * MAP_WINDOW)
        while assign.stop < MAP_WINDOW:
            assert (assign.first, caller(here).accepted) == (0, MAP_WINDOW)
            await run(container, assign)
            assert (await here.client.expect(m.Outputs))[0].first == assign.start
            assign, payload = await container.expect(m.Assign)
        await run(container, assign)
        assign, payload = await container.expect(m.Assign)
        assert (assign.first, assign.start, bytes(payload)) == (MAP_WINDOW, MAP_WINDOW, b"in")
        assert not caller(here).window.ahead


async def test_the_end_of_the_map_comes_with_it() -> None:
    async with mapping() as (here, container, assign):
        await here.client.send(m.EndInputs("fc-1", 2 * MAP_WINDOW))
        while assign.stop < 2 * MAP_WINDOW:
            await run(container, assign)
            assign, _ = await container.expect(m.Assign)
        await run(container, assign)
        await here.until(lambda: not here.server._services.dispatcher.calls)


async def test_it_is_dropped_with_its_call() -> None:
    async with mapping() as (here, container, assign):
        known = caller(here)
        await here.client.send(m.Cancel("fc-1"))
        await container.expect(m.CancelRange)
        assert not known.window.ahead
        await container.send(m.Returned(assign.range, 0))
        await here.until(lambda: not here.server._services.dispatcher.calls)


async def test_it_is_refused_where_its_app_is_closed() -> None:
    async with mapping() as (here, container, _):
        await here.client.send(m.CloseApp("ap-1"))
        container.close()
        refused, _ = await here.client.expect(m.Refused)
        assert (refused.first, refused.count, refused.error.kind) == (MAP_WINDOW, MAP_WINDOW, "missing")


async def test_it_is_refused_with_what_was_before_it() -> None:
    """The limit leaves no room for the second segment, and the window none for the third; both are offered again."""
    async with stage(Limits(total=950)) as here:
        await here.client.send(m.OpenApp("ap-1", "app", [ONE]))
        await submit(here, 0, 900)
        await submit(here, 900, 200)
        await submit(here, 1100, 500)
        container = await here.container(await here.started("ap-1/f"))
        assign, _ = await container.expect(m.Assign)
        while caller(here).window.in_flight > 800:
            await run(container, assign)
            assign, _ = await container.expect(m.Assign)
        assert caller(here).window.in_flight > 500
        refused, _ = await here.client.expect(m.Refused)
        assert (refused.first, refused.error.kind) == (900, "exhausted")
        assert (await here.client.expect(m.Refused))[0].first == 1100  # out of turn
        assert not caller(here).window.ahead


async def test_nothing_is_left_of_it_when_its_client_leaves() -> None:
    async with mapping() as (here, container, assign):
        known = caller(here)
        here.client.close()
        await container.expect(m.CancelRange)
        await container.send(m.Returned(assign.range, 0))
        await here.until(lambda: not known.window.ahead)


async def test_who_sends_too_far_ahead_is_sent_away() -> None:
    async with mapping() as (here, _, _):
        await submit(here, 2 * MAP_WINDOW)
        await submit(here, 3 * MAP_WINDOW)
        bye, _ = await here.client.expect(m.Bye)
        assert "2,000 inputs ahead of those that are in flight" in bye.reason


@pytest.mark.parametrize("total", [MAP_WINDOW, 2 * MAP_WINDOW - 1, 2 * MAP_WINDOW + 1])
async def test_it_counts_among_the_inputs_of_the_map(total: int) -> None:
    async with mapping() as (here, _, _):
        await here.client.send(m.EndInputs("fc-1", total))
        bye, _ = await here.client.expect(m.Bye)
        assert "has 2000 inputs" in bye.reason
