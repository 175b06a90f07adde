"""An app ends while somebody has something to do with it: everybody is told, and nobody waits for ever."""

from pathlib import Path

import pytest

from upswell.spec import AutoscalerSettings, Limits, SettingsUpdate
from upswell.wire import messages as m

from .stage import Peer, Stage, record, stage

LIMITS = Limits(pending=10, total=20)
ONE = record("f", settings=AutoscalerSettings(max_containers=1))


async def deployed(here: Stage) -> str:
    """The id of the function f of the app census."""
    await here.client.send(m.Deploy(1, "ap-new", "census", (ONE,), ()))
    return f"{(await here.client.expect(m.Deployed))[0].app}/f"


async def submit(peer: Peer, call: str, function: str, first: int, count: int) -> None:
    await peer.send(m.Submit(call, function, "map", first, count, False), payload=b"in")


async def stop(here: Stage) -> None:
    await here.client.send(m.StopApp(2, "census"))
    assert (await here.client.expect(m.Done))[0].error is None


async def test_further_inputs_of_a_call_whose_app_is_stopped_are_refused(home: Path) -> None:
    async with stage(home=home) as here:
        function = await deployed(here)
        await submit(here.client, "fc-1", function, 0, 1)
        container = await here.container(await here.started(function))
        assign, _ = await container.expect(m.Assign)
        await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001), payload=b"out")
        await here.client.expect(m.Outputs)
        await stop(here)
        await submit(here.client, "fc-1", function, 1, 1)
        refused, _ = await here.client.expect(m.Refused)
        assert (refused.call, refused.first, refused.error.kind) == ("fc-1", 1, "missing")
        assert "stopped" in refused.error.message


async def test_who_waits_for_room_in_an_app_that_is_stopped_is_told(home: Path) -> None:
    async with stage(LIMITS, home) as here:
        function = await deployed(here)
        await submit(here.client, "fc-1", function, 0, 10)
        await submit(here.client, "fc-2", function, 0, 1)
        assert (await here.client.expect(m.Refused))[0].error.kind == "exhausted"
        await here.client.send(m.StopApp(2, "census"))
        assert (await here.client.expect(m.Invited))[0].call == "fc-2"
        await submit(here.client, "fc-2", function, 0, 1)
        refused, _ = await here.client.expect(m.Refused)
        assert (refused.call, refused.error.kind) == ("fc-2", "missing")


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_client_leaves_that_was_refused_by_an_app_that_it_has_closed(home: Path, cancels: bool) -> None:
    async with stage(LIMITS, home) as here:
        client = await here.neighbour()
        await client.send(m.OpenApp("ap-1", "app", [ONE]))
        await submit(client, "fc-1", "ap-1/f", 0, 10)
        await submit(client, "fc-2", "ap-1/f", 0, 1)
        await client.expect(m.Refused)
        await client.send(m.ReadLogs(3, "ap-1", follow=True), m.CloseApp("ap-1"))
        await client.expect(m.AppClosed)
        if cancels:
            await client.send(m.Cancel("fc-2"), m.DescribeServer(4))
            await client.expect(m.ServerDescribed)
        client.close()
        services = here.server._services
        assert services.logs is not None
        await here.until(lambda: not services.logs._readers)  # type: ignore[union-attr] # which is looked at last
        assert not services.dispatcher.refused and not services.dispatcher.calls


async def test_inputs_of_a_call_that_has_ended_with_them_are_accepted_once_more(home: Path) -> None:
    async with stage(home=home) as here:
        function = await deployed(here)
        for first, last in ((0, False), (1, True)):
            await here.client.send(m.Submit("fc-1", function, "spawn", first, 1, last), payload=b"in")
            await here.client.expect(m.Accepted)
        container = await here.container(await here.started(function))
        for _ in range(2):
            assign, _ = await container.expect(m.Assign)
            await container.send(m.Results(assign.range, assign.start, 1, 0.001, 0.001), payload=b"out")
        await here.client.send(m.Collect("fc-1", 0, -1))
        for _ in range(2):
            await here.client.expect(m.Outputs)
    async with stage(home=home) as here:
        await here.client.send(m.Submit("fc-1", function, "spawn", 1, 1, True), payload=b"in")
        assert (await here.client.expect(m.Accepted))[0].first == 1


async def test_only_an_app_that_is_served_can_be_stopped(home: Path) -> None:
    async with stage(home=home) as here:
        await here.client.send(m.OpenApp("ap-1", "app", [ONE]), m.StopApp(1, "ap-1"), m.StopApp(2, "ap-2"))
        for words in ("the app ap-1 runs for a program, and ends with it", "no app ap-2 is served here"):
            error = (await here.client.expect(m.Done))[0].error
            assert error is not None and error.kind == "missing" and words in error.message


async def test_what_runs_and_what_waits_of_an_app_that_is_stopped_fails_for_that_reason(home: Path) -> None:
    async with stage(home=home) as here:
        function = await deployed(here)
        await here.client.send(m.Submit("fc-1", function, "spawn", 0, 2, True), payload=b"in")
        await here.client.expect(m.Accepted)
        container = await here.container(await here.started(function))
        assign, _ = await container.expect(m.Assign)
        await stop(here)
        await container.expect(m.Drain)
        cancelled = m.ErrorRecord("cancelled", "", "the call was cancelled")
        await container.send(m.Failure(assign.range, assign.start, 0.0, 0.0, cancelled))
        await here.client.send(m.Collect("fc-1", 0, -1))
        failed = [(await here.client.expect(m.Failed))[0] for _ in range(2)]
        assert [one.error.message for one in failed] == ["its app is stopped"] * 2


async def test_a_function_that_a_version_has_no_more_is_missing(home: Path) -> None:
    async with stage(home=home) as here:
        function = await deployed(here)
        await here.client.send(m.Submit("fc-1", function, "spawn", 0, 1, True), payload=b"in")
        await here.client.expect(m.Accepted)
        await here.client.send(m.Deploy(2, "ap-new", "census", (record("g"),), ()))
        assert (await here.client.expect(m.Deployed))[0].version == 2
        await here.client.send(m.Collect("fc-1", 0, -1))
        failed, _ = await here.client.expect(m.Failed)
        assert (failed.error.kind, failed.error.message) == ("cancelled", "f is no part of version 2 of census")
        for update in (None, SettingsUpdate(min_containers=1)):
            await here.client.send(m.Inquire(3, function, update))
            answer, _ = await here.client.expect(m.Statistics)
            assert answer.error is not None and answer.error.kind == "missing"
