"""What every store promises of that which is written to it, whatever it is made of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from pickle import PickleBuffer

import msgspec
import pytest

from tests.stores.desk import Desk, opened, outputs, saved
from upswell import store as s
from upswell.core.snapshot import SavedCall, SavedSegment
from upswell.errors import ConflictError, InvalidError, NotFoundError
from upswell.spec import (
    OUTCOMES_KEPT_SECONDS,
    AutoscalerSettings,
    Cron,
    Environment,
    FunctionRecord,
    FunctionSpec,
    Period,
    Retries,
    SettingsUpdate,
)
from upswell.store import Kept, Outcome
from upswell.wire.buffers import Block
from upswell.wire.messages import ErrorRecord

DAY = 24 * 3600.0
BUFFERS = bytes(range(256)) * 10_000  # more than one piece


@pytest.fixture(params=["memory", "sqlite"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    before = descriptors()
    with Desk(tmp_path / "home" if request.param == "sqlite" else None) as desk:
        yield desk
    left = descriptors() - before  # what others had open may have been collected meanwhile
    assert not left, "close() lets go of everything"


def descriptors() -> set[tuple[str, str]]:
    """What this process has open; less what is closed while it is looked at, as the list itself is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


# -- calls -----------------------------------------------------------------------------------------


def test_a_segment_is_kept_as_it_came(desk: Desk) -> None:
    assert desk.offer(*opened("fc-1")) is None
    assert bytes(desk.store.inputs("fc-1", 0).payload) == b"inputs of fc-1"
    with pytest.raises(KeyError):
        desk.store.inputs("fc-1", 10)
    with pytest.raises(KeyError):
        desk.store.inputs("fc-2", 0)


def test_a_call_is_described(desk: Desk) -> None:
    desk.offer(*opened("fc-1", 10))
    desk.offer(*opened("fc-2", 1, last=True))
    assert desk.store.call("fc-1") == s.CallRecord("fc-1", "ap-1/f", "spawn", 10, None, False, 100.0, None)
    assert desk.store.call("fc-2") == s.CallRecord("fc-2", "ap-1/f", "spawn", 1, 1, False, 100.0, None)
    assert desk.store.call("fc-3") is None
    assert [call.id for call in desk.store.calls()] == ["fc-2", "fc-1"]
    assert [call.id for call in desk.store.calls(1)] == ["fc-2"]
    assert [call.id for call in desk.store.calls(2, skip=1)] == ["fc-1"]


def test_what_is_left_of_a_call_is_what_has_no_outcome(desk: Desk) -> None:
    desk.offer(*opened("fc-1", 10))
    desk.offer(s.PutInputs("fc-1", 10, 5, False, Kept(b"more")))
    desk.commit(outputs("fc-1", 7, 2), s.PutAttempts("fc-1", 3, 1, 0), s.PutAttempts("fc-1", 12, 0, 2))
    desk.commit(outputs("fc-1", 0, 3), s.PutAttempts("fc-1", 3, 1, 1))
    assert saved(desk) == {
        "fc-1": SavedCall(
            "fc-1",
            "ap-1/f",
            "spawn",
            15,
            None,
            False,
            (SavedSegment(0, 10, ((3, 7), (9, 10))), SavedSegment(10, 5, ((10, 15),))),
            ((3, 1, 1), (12, 0, 2)),
        )
    }
    desk.commit(outputs("fc-1", 3, 4), outputs("fc-1", 9, 1), s.DropInputs("fc-1", 0), s.EndInputs("fc-1", 15))
    left = saved(desk)["fc-1"]
    assert (left.total, left.attempts) == (15, ((12, 0, 2),))
    assert left.segments == (SavedSegment(10, 5, ((10, 15),)),)
    with pytest.raises(KeyError):
        desk.store.inputs("fc-1", 0)


def test_a_segment_that_is_settled_before_it_is_kept_does_not_stay(desk: Desk) -> None:
    desk.store.commit(opened("fc-1", 1, last=True), lambda: None)
    desk.commit(outputs("fc-1", 0, 1), s.DropInputs("fc-1", 0))
    with pytest.raises(KeyError):
        desk.store.inputs("fc-1", 0)


def test_a_finished_call_is_not_gone_on_with(desk: Desk) -> None:
    desk.offer(*opened("fc-1", 2, last=True))
    desk.commit(outputs("fc-1", 0, 2), s.DropInputs("fc-1", 0), s.FinishCall("fc-1", 200.0))
    assert saved(desk) == {}
    call = desk.store.call("fc-1")
    assert call is not None
    assert call.finished_at == 200.0
    assert len(list(desk.store.outcomes("fc-1"))) == 1


def test_who_made_an_unfinished_call_and_its_method_are_told(desk: Desk) -> None:
    inputs = s.PutInputs("fc-1", 0, 1, True, Kept(b"in"))
    desk.offer(s.OpenCall("fc-1", "ap-1/C", "spawn", 1.0, "sell", "ap-2"), inputs)
    desk.offer(*opened("fc-2", 1, last=True))
    assert (desk.store.load().methods, desk.store.load().makers) == ((("fc-1", "sell"),), (("fc-1", "ap-2"),))
    desk.commit(outputs("fc-1", 0, 1), s.DropInputs("fc-1", 0), s.FinishCall("fc-1", 2.0))
    assert desk.store.load().methods == desk.store.load().makers == ()


def test_a_cancelled_call_says_so(desk: Desk) -> None:
    desk.offer(*opened("fc-1"))
    desk.commit(s.CancelCall("fc-1"))
    assert saved(desk)["fc-1"].cancelled
    assert isinstance(desk.offer(s.PutInputs("fc-1", 10, 1, True, Kept(b"late"))), ConflictError)


def test_a_cancelled_input_says_so_until_it_has_ended(desk: Desk) -> None:
    desk.offer(*opened("fc-1"))
    desk.offer(s.PutInputs("fc-1", 10, 5, True, Kept(b"more")))
    for position in (12, 3, 3, 4):
        assert desk.offer(s.CancelInput("fc-1", position)) is None
    assert saved(desk)["fc-1"].cancelled_inputs == (3, 4, 12)
    assert not saved(desk)["fc-1"].cancelled
    desk.commit(outputs("fc-1", 4, 2))
    assert saved(desk)["fc-1"].cancelled_inputs == (3, 12)
    desk.commit(outputs("fc-1", 0, 4), outputs("fc-1", 6, 4), s.DropInputs("fc-1", 0))
    assert saved(desk)["fc-1"].cancelled_inputs == (12,)
    assert desk.offer(s.CancelInput("fc-1", 3)) is None  # it has ended
    assert desk.offer(s.CancelInput("fc-1", 99)) is None  # there is none
    assert saved(desk)["fc-1"].cancelled_inputs == (12,)
    desk.commit(outputs("fc-1", 10, 5), s.DropInputs("fc-1", 10), s.FinishCall("fc-1", 200.0))
    assert desk.offer(s.CancelInput("fc-1", 12)) is None
    assert isinstance(desk.offer(s.CancelInput("fc-2", 0)), NotFoundError)
    assert saved(desk) == {}


def test_a_cancelled_input_goes_with_what_is_withdrawn(desk: Desk) -> None:
    desk.offer(*opened("fc-1"))
    desk.offer(s.PutInputs("fc-1", 10, 5, True, Kept(b"more")))
    desk.offer(s.CancelInput("fc-1", 12), s.CancelInput("fc-1", 2))
    desk.commit(s.WithdrawInputs("fc-1", 10))
    desk.offer(s.PutInputs("fc-1", 10, 5, True, Kept(b"more")))
    assert saved(desk)["fc-1"].cancelled_inputs == (2,)


def test_outcomes_come_by_position_and_as_they_were(desk: Desk) -> None:
    desk.offer(*opened("fc-1", 400))
    error = ErrorRecord("user", "builtins.ValueError", "no", "Traceback", 2)
    desk.commit(s.PutOutcome("fc-1", Outcome(399, 1, Kept(b"exception"), error)))
    for first in range(395, -5, -5):
        desk.commit(outputs("fc-1", first, 4 if first == 395 else 5))
    kept = list(desk.store.outcomes("fc-1"))
    assert [outcome.first for outcome in kept] == [*range(0, 400, 5), 399]
    assert bytes(kept[1].kept.payload) == b"outputs from 5"
    assert kept[-1].error == error
    assert bytes(kept[-1].kept.payload) == b"exception"


def test_failures_are_counted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.offer(*opened("fc-1"))
    desk.offer(*opened("fc-2"))
    error = ErrorRecord("user", "builtins.ValueError", "no")
    for first, count in ((0, 2), (5, 1)):
        desk.commit(s.PutOutcome("fc-1", Outcome(first, count, Kept(b""), error)))
    desk.commit(outputs("fc-1", 7, 3))
    desk.store.put_outcome("fc-3", Outcome(0, 4, Kept(b""), error))
    assert [desk.store.failures(call) for call in ("fc-1", "fc-2", "fc-3", "fc-4")] == [3, 0, 4, 0]
    monkeypatch.setattr(s, "MAX_FAILURES", 2)
    assert desk.store.failures("fc-1") == 2


def test_some_outcomes_can_be_asked_for(desk: Desk) -> None:
    desk.offer(*opened("fc-1", 50))
    for first in range(0, 50, 10):
        desk.commit(outputs("fc-1", first, 10))

    def asked(first: int, stop: int | None) -> list[int]:
        return [outcome.first for outcome in desk.store.outcomes("fc-1", first, stop)]

    assert asked(10, 30) == [10, 20]
    assert asked(19, 21) == [10, 20]
    assert asked(35, None) == [30, 40]
    assert asked(50, None) == []
    assert list(desk.store.outcomes("fc-2")) == []


def test_outcomes_that_come_later_are_not_part_of_an_earlier_look(desk: Desk) -> None:
    desk.offer(*opened("fc-1", 500))
    for first in range(0, 400, 2):
        desk.commit(outputs("fc-1", first, 2))
    looking = desk.store.outcomes("fc-1")
    next(looking)
    desk.commit(outputs("fc-1", 400, 100))
    assert [outcome.first for outcome in looking] == list(range(2, 400, 2))


def test_buffers_come_back_whole_and_are_the_takers_own(desk: Desk) -> None:
    block = Block.write([PickleBuffer(BUFFERS)])
    desk.offer(*opened("fc-1", 2, last=True, block=block))
    outcome = Outcome(0, 2, Kept(b"outputs", block))
    desk.commit(s.PutOutcome("fc-1", outcome))
    block.close()
    inputs = desk.store.inputs("fc-1", 0)
    assert inputs.block is not None
    assert bytes(inputs.block.map([len(BUFFERS)])[0]) == BUFFERS
    for _ in range(2):
        (taken,) = desk.store.outcomes("fc-1")
        assert taken.kept.block is not None
        assert bytes(taken.kept.block.map([len(BUFFERS)])[0]) == BUFFERS
        taken.kept.close()
    desk.commit(s.DropInputs("fc-1", 0))
    desk.commit(s.DropCall("fc-1"))
    assert desk.store.call("fc-1") is None
    assert list(desk.store.outcomes("fc-1")) == []


# -- refused ---------------------------------------------------------------------------------------


def test_the_same_inputs_are_not_kept_twice(desk: Desk) -> None:
    desk.offer(*opened("fc-1"))
    assert isinstance(desk.offer(*opened("fc-1")), ConflictError)
    assert isinstance(desk.offer(s.PutInputs("fc-1", 0, 10, False, Kept(b"again"))), ConflictError)
    assert isinstance(desk.offer(s.PutInputs("fc-1", 11, 1, False, Kept(b"a gap"))), ConflictError)
    assert isinstance(desk.offer(s.PutInputs("fc-9", 0, 1, False, Kept(b"nobody's"))), NotFoundError)
    assert bytes(desk.store.inputs("fc-1", 0).payload) == b"inputs of fc-1"
    assert saved(desk)["fc-1"].submitted == 10


def test_a_step_is_kept_whole_or_not_at_all(desk: Desk) -> None:
    refused = desk.offer(*opened("fc-1"), *opened("fc-2"), s.PutInputs("fc-9", 0, 1, False, Kept(b"nobody's")))
    assert isinstance(refused, NotFoundError)
    assert saved(desk) == {}
    assert desk.offer(*opened("fc-2")) is None


def test_inputs_that_are_withdrawn_never_were(desk: Desk) -> None:
    desk.offer(*opened("fc-1"))
    before = saved(desk)
    desk.offer(s.PutInputs("fc-1", 10, 10, True, Kept(b"too many")))
    desk.commit(s.WithdrawInputs("fc-1", 10))
    assert saved(desk) == before
    assert desk.offer(s.PutInputs("fc-1", 10, 3, True, Kept(b"fewer"))) is None
    assert bytes(desk.store.inputs("fc-1", 10).payload) == b"fewer"


def test_what_came_after_a_withdrawn_segment_goes_with_it(desk: Desk) -> None:
    desk.offer(*opened("fc-1"))
    before = saved(desk)
    desk.offer(s.PutInputs("fc-1", 10, 10, False, Kept(b"too many")))
    desk.offer(s.PutInputs("fc-1", 20, 10, True, Kept(b"even more")))
    desk.commit(s.WithdrawInputs("fc-1", 10))
    assert saved(desk) == before
    with pytest.raises(KeyError):
        desk.store.inputs("fc-1", 20)
    assert desk.offer(s.PutInputs("fc-1", 10, 10, False, Kept(b"once more"))) is None
    desk.commit(s.WithdrawInputs("fc-1", 20))
    assert bytes(desk.store.inputs("fc-1", 10).payload) == b"once more"


def test_the_first_segment_withdrawn_takes_the_call_along(desk: Desk) -> None:
    desk.offer(*opened("fc-2"))
    desk.commit(s.WithdrawInputs("fc-2", 0))
    desk.commit(s.WithdrawInputs("fc-2", 10))  # kept behind it, and refused as out of turn
    assert desk.store.call("fc-2") is None
    assert desk.offer(*opened("fc-2")) is None


# -- what ends with the process --------------------------------------------------------------------


def test_both_faces_give_back_what_they_were_given(desk: Desk) -> None:
    desk.store.put_inputs("fc-0", 0, Kept(b"passing"))
    desk.store.put_outcome("fc-0", Outcome(0, 1, Kept(b"output")))
    assert bytes(desk.store.inputs("fc-0", 0).payload) == b"passing"
    assert [bytes(outcome.kept.payload) for outcome in desk.store.outcomes("fc-0")] == [b"output"]
    assert saved(desk) == {}
    desk.store.drop_inputs("fc-0", 0)
    desk.store.drop_inputs("fc-0", 0)
    desk.store.drop_call("fc-0")
    with pytest.raises(KeyError):
        desk.store.inputs("fc-0", 0)
    assert list(desk.store.outcomes("fc-0")) == []


# -- retention -------------------------------------------------------------------------------------


def test_outcomes_are_kept_for_a_time_and_calls_a_little_longer(desk: Desk) -> None:
    for name in ("fc-1", "fc-2"):
        desk.offer(*opened(name, 2000, last=True))
        for first in range(2000):
            desk.store.commit([outputs(name, first, 1)], lambda: None)
    desk.commit(s.DropInputs("fc-1", 0), s.FinishCall("fc-1", 1 * DAY))
    desk.sweep(1 * DAY + OUTCOMES_KEPT_SECONDS - 1)
    assert len(list(desk.store.outcomes("fc-1"))) == 2000
    desk.sweep(1 * DAY + OUTCOMES_KEPT_SECONDS)
    assert list(desk.store.outcomes("fc-1")) == []
    call = desk.store.call("fc-1")
    assert call is not None
    assert call.expired
    desk.sweep(1 * DAY + 2 * OUTCOMES_KEPT_SECONDS)
    assert desk.store.call("fc-1") is None
    assert len(list(desk.store.outcomes("fc-2"))) == 2000, "it is not finished"


# -- apps ------------------------------------------------------------------------------------------


def version(number: int, *files: tuple[str, str], app: str = "ap-1") -> s.Version:
    environment = Environment(
        kind="module", origin="census", module="census", main=False, sys_path=("code",), directory="."
    )
    record = FunctionRecord(
        id=f"{app}/f",
        app_name="census",
        name="f",
        spec=FunctionSpec(
            settings=AutoscalerSettings(max_containers=number),
            retries=Retries(max_retries=2),
            schedule=Cron("0 9 * * *", "Europe/Berlin") if number == 1 else Period(hours=number),
        ),
        environment=environment,
        serialized=b"\x00\xff",
    )
    return s.Version(app, number, f"v{number}", 100.0 + number, (record,), files)


def test_an_app_is_served_by_its_present_version(desk: Desk) -> None:
    one, two = version(1, ("a.py", "d1"), ("b.py", "d2")), version(2, ("a.py", "d3"), ("b.py", "d2"))
    files = [s.PutFile("d1", b"one"), s.PutFile("d2", b"both")]
    app = s.AppRecord("ap-1", "census", 1)
    assert desk.offer(*files, s.PutVersion(one), s.PutApp(app)) is None
    assert desk.store.load().apps == ((app, one),)
    assert desk.store.missing(["d1", "d2", "d3"]) == {"d3"}
    newer = s.AppRecord("ap-1", "census", 2)
    assert desk.offer(s.PutFile("d3", b"two"), s.PutVersion(two), s.PutApp(newer)) is None
    assert desk.store.load().apps == ((newer, two),)
    assert [desk.store.version("ap-1", number) for number in (1, 2, 3)] == [one, two, None]
    heads = [s.VersionHead(number.number, number.tag, number.deployed_at) for number in (two, one)]
    assert desk.store.version_heads("ap-1") == heads
    assert desk.store.version_heads("ap-1", 1) == heads[:1]
    assert desk.store.version_heads("ap-2") == []
    assert [desk.store.file(digest) for digest in ("d1", "d2", "d3")] == [b"one", b"both", b"two"]
    desk.commit(s.PutApp(app))  # a rollback
    assert desk.store.load().apps == ((app, one),)
    desk.commit(s.PutApp(s.AppRecord("ap-1", "census", 0)))  # stopped
    assert desk.store.load().apps == ()
    assert desk.store.apps() == [s.AppRecord("ap-1", "census", 0)]


def test_a_version_without_its_files_is_refused(desk: Desk) -> None:
    refused = desk.offer(s.PutFile("d1", b"one"), s.PutVersion(version(1, ("a.py", "d1"), ("b.py", "d2"))))
    assert isinstance(refused, InvalidError)
    assert "b.py" in str(refused)
    assert desk.store.version_heads("ap-1") == []
    assert desk.store.version("ap-1", 1) is None
    assert desk.store.missing(["d1"]) == {"d1"}


def test_files_are_kept_for_as_long_as_a_version_has_them(desk: Desk) -> None:
    files = [s.PutFile("d1", b"one"), s.PutFile("d2", b"both")]
    desk.offer(*files, s.PutVersion(version(1, ("a.py", "d1"), ("b.py", "d2"))))
    desk.offer(s.PutVersion(version(1, ("b.py", "d2"), app="ap-2")), s.PutApp(s.AppRecord("ap-2", "other", 1)))
    desk.commit(s.DropApp("ap-1"))
    assert desk.store.missing(["d1", "d2"]) == {"d1"}
    with pytest.raises(KeyError):
        desk.store.file("d1")
    assert [app.id for app, _ in desk.store.load().apps] == ["ap-2"]


def test_settings_and_fires_are_kept_until_they_are_taken_away(desk: Desk) -> None:
    laid_over = SettingsUpdate(min_containers=2, max_containers=None)
    desk.commit(s.PutSettings("ap-1/f", SettingsUpdate()), s.PutFire("ap-1/f", 10.0), s.PutFire("ap-1/g", 20.0))
    desk.commit(s.PutSettings("ap-1/f", laid_over), s.PutFire("ap-1/f", 30.5))
    assert desk.store.load().settings == (("ap-1/f", laid_over),)
    assert desk.store.load().fires == (("ap-1/f", 30.5), ("ap-1/g", 20.0))
    desk.commit(s.PutSettings("ap-1/f", None), s.PutFire("ap-1/f", None))
    assert (desk.store.load().settings, desk.store.load().fires) == ((), (("ap-1/g", 20.0),))


def test_an_app_that_is_dropped_takes_what_was_kept_of_its_functions(desk: Desk) -> None:
    laid_over, derived = SettingsUpdate(min_containers=2), version(1).functions[0]
    for function in ("ap-1/f", "ap-11/f"):
        record = msgspec.structs.replace(derived, id=f"{function}@1")
        desk.commit(s.PutSettings(function, laid_over), s.PutFire(function, 10.0), s.PutDerived(record))
    desk.commit(s.DropApp("ap-1"))
    assert [record.id for record in desk.store.load().derived] == ["ap-11/f@1"]
    desk.commit(s.DropDerived("ap-11/f@1"))
    assert desk.store.load().derived == ()
    assert desk.store.load().settings == (("ap-11/f", laid_over),)
    assert desk.store.load().fires == (("ap-11/f", 10.0),)
