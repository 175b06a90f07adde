"""The store of a private server: it lives as long as the process, and so does everything that is written to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec
from msgspec.structs import replace

from .. import store as s
from ..core.snapshot import SavedCall, SavedSegment, unsettled_spans
from ..errors import ConflictError, Error, InvalidError
from ..spec import OUTCOMES_KEPT_SECONDS, FunctionRecord, SettingsUpdate
from ..store import Kept, Outcome


class _Written(msgspec.Struct):
    """A call that was written, without its payloads."""

    record: s.CallRecord
    segments: dict[int, int] = {}  # first → count
    attempts: dict[int, tuple[int, int]] = {}  # position → failures, losses
    cancelled: set[int] = set()  # positions

    def forget(self, first: int) -> None:
        """Nothing more is to be known of the segment's inputs."""
        gone = range(first, first + self.segments.pop(first))
        self.attempts = {position: counts for position, counts in self.attempts.items() if position not in gone}
        self.cancelled = {position for position in self.cancelled if position not in gone}


class MemoryStore:
    """Keeps everything in dictionaries."""

    trouble = ""

    def __init__(self) -> None:
        self._inputs: dict[str, dict[int, Kept]] = {}
        self._outcomes: dict[str, list[Outcome]] = {}
        self._calls: dict[str, _Written] = {}  # in the order they were opened
        self._apps: dict[str, s.AppRecord] = {}
        self._versions: dict[str, list[s.Version]] = {}
        self._files: dict[str, bytes] = {}
        self._derived: dict[str, FunctionRecord] = {}
        self._settings: dict[str, SettingsUpdate] = {}
        self._fires: dict[str, float] = {}

    # -- payloads ----------------------------------------------------------------------------------

    def put_inputs(self, call: str, first: int, kept: Kept) -> None:
        segments = self._inputs.setdefault(call, {})
        if (before := segments.get(first)) is not None:
            before.close()
        segments[first] = kept

    def inputs(self, call: str, first: int) -> Kept:
        return self._inputs[call][first]

    def drop_inputs(self, call: str, first: int) -> None:
        segments = self._inputs.get(call, {})
        if kept := segments.pop(first, None):
            kept.close()
            if not segments:
                del self._inputs[call]

    def put_outcome(self, call: str, outcome: Outcome) -> None:
        self._outcomes.setdefault(call, []).append(outcome)

    def outcomes(self, call: str, first: int = 0, stop: int | None = None) -> Iterator[Outcome]:
        def overlaps(outcome: Outcome) -> bool:
            return outcome.first + outcome.count > first and (stop is None or outcome.first < stop)

        for outcome in sorted(filter(overlaps, self._outcomes.get(call, ())), key=lambda outcome: outcome.first):
            yield replace(outcome, kept=outcome.kept.share())

    def drop_call(self, call: str) -> None:
        for outcome in self._outcomes.pop(call, ()):
            outcome.kept.close()
        for first in list(self._inputs.get(call, ())):
            self.drop_inputs(call, first)

    def close(self) -> None:
        for call in [*self._outcomes, *self._inputs]:
            self.drop_call(call)

    # -- writes ------------------------------------------------------------------------------------

    def offer(self, writes: Sequence[s.Write], answer: s.Answer) -> None:
        try:
            self._check(writes)
        except Error as error:
            answer(error)
            return
        self.commit(writes, lambda: answer(None))

    def commit(self, writes: Sequence[s.Write], done: s.Done) -> None:
        for write in writes:
            if isinstance(write, s.AppWrite):
                self._write_app(write)
            else:
                self._write_call(write)
        done()

    def _check(self, writes: Sequence[s.Write]) -> None:
        """Raise where one of the writes would contradict what is kept, before any of them is done."""
        coming = {write.digest for write in writes if isinstance(write, s.PutFile)}
        opened: set[str] = set()
        for write in writes:
            if isinstance(write, s.PutVersion):
                s.check_files(write.version, self.missing(digest for _, digest in write.version.files) - coming)
            elif isinstance(write, s.OpenCall):
                if write.call in self._calls:
                    raise ConflictError(f"the call {write.call} is kept already")
                opened.add(write.call)
            elif isinstance(write, s.CallWrite):
                record = self.call(write.call)
                if record is None and write.call not in opened and not isinstance(write, s.WithdrawInputs):
                    raise s.unknown(write.call)
                if isinstance(write, s.PutInputs) and not _is_next(write, record):
                    raise s.out_of_turn(write)

    def _write_call(self, write: s.CallWrite) -> None:
        if isinstance(write, s.OpenCall):
            record = s.CallRecord(write.call, write.function, write.kind, 0, None, False, write.at, None)
            record = replace(record, method=write.method, maker=write.maker)
            self._calls[write.call] = _Written(record)
            return
        if isinstance(write, s.WithdrawInputs):
            self._withdraw(write.call, write.first)
            return
        written = self._calls[write.call]
        record = written.record
        match write:
            case s.PutInputs(call=call, first=first, count=count, last=last):
                written.segments[first] = count
                submitted = first + count
                written.record = replace(record, submitted=submitted, total=submitted if last else None)
                self.put_inputs(call, first, write.kept.share())
            case s.EndInputs(total=total):
                written.record = replace(record, total=total)
            case s.CancelCall():
                written.record = replace(record, cancelled=True)
            case s.CancelInput(position=position):
                if any(first <= position < first + count for first, count in written.segments.items()):
                    written.cancelled.add(position)
            case s.PutAttempts():
                written.attempts[write.position] = (write.failures, write.losses)
            case s.PutOutcome(call=call, outcome=outcome):
                self.put_outcome(call, replace(outcome, kept=outcome.kept.share()))
            case s.DropInputs(call=call, first=first):
                written.forget(first)
                self.drop_inputs(call, first)
            case s.FinishCall(at=at):
                written.record = replace(record, finished_at=at)
            case s.DropCall(call=call):
                del self._calls[call]
                self.drop_call(call)

    def _withdraw(self, call: str, position: int) -> None:
        written = self._calls.get(call)
        if written is None:
            return
        for first in [first for first in written.segments if first >= position]:
            written.forget(first)
            self.drop_inputs(call, first)
        if written.record.submitted > position:
            written.record = replace(written.record, submitted=position, total=None)
        if not position:
            del self._calls[call]

    def _write_app(self, write: s.AppWrite) -> None:
        match write:
            case s.PutFile(digest=digest, content=content):
                self._files[digest] = content
            case s.PutVersion(version=version):
                self._versions.setdefault(version.app, []).append(version)
            case s.PutApp(app=app):
                self._apps[app.id] = app
            case s.DropApp(app=name):
                self._apps.pop(name, None)
                self._versions.pop(name, None)
                for values in (self._settings, self._fires, self._derived):
                    for function in [function for function in values if function.startswith(f"{name}/")]:
                        del values[function]
                held = {digest for kept in self._versions.values() for version in kept for _, digest in version.files}
                self._files = {digest: content for digest, content in self._files.items() if digest in held}
            case s.PutSettings(function=function, settings=None):
                self._settings.pop(function, None)
            case s.PutDerived(record=record):
                self._derived[record.id] = record
            case s.DropDerived(function=function):
                self._derived.pop(function, None)
            case s.PutSettings(function=function, settings=SettingsUpdate() as settings):
                self._settings[function] = settings
            case s.PutFire(function=function, moment=None):
                self._fires.pop(function, None)
            case s.PutFire(function=function, moment=float(moment)):
                self._fires[function] = moment

    # -- reading -----------------------------------------------------------------------------------

    def load(self) -> s.Snapshot:
        served = [app for app in self._apps.values() if app.version]
        unfinished = [call.record for call in self._calls.values() if call.record.finished_at is None]
        return s.Snapshot(
            1,
            tuple((app, self._versions[app.id][app.version - 1]) for app in served),
            tuple(record for _, record in sorted(self._derived.items())),
            tuple(sorted(self._settings.items())),
            tuple(sorted(self._fires.items())),
            tuple(self._saved(call) for call in self._calls.values() if call.record.finished_at is None),
            tuple((record.id, record.method) for record in unfinished if record.method),
            tuple((record.id, record.maker) for record in unfinished if record.maker),
        )

    def _saved(self, call: _Written) -> SavedCall:
        record = call.record
        settled = sorted((outcome.first, outcome.count) for outcome in self._outcomes.get(record.id, ()))
        segments = []
        for first, count in sorted(call.segments.items()):
            within = [span for span in settled if first <= span[0] < first + count]
            segments.append(SavedSegment(first, count, unsettled_spans(first, count, within)))
        return SavedCall(
            record.id,
            record.function,
            record.kind,
            record.submitted,
            record.total,
            record.cancelled,
            tuple(segments),
            tuple((position, *counts) for position, counts in sorted(call.attempts.items())),
            cancelled_inputs=tuple(
                sorted(call.cancelled.difference(*(range(one, one + many) for one, many in settled)))
            ),
        )

    def call(self, call: str) -> s.CallRecord | None:
        written = self._calls.get(call)
        return written.record if written else None

    def calls(self, limit: int = 100, skip: int = 0) -> list[s.CallRecord]:
        return [written.record for written in islice(reversed(self._calls.values()), skip, skip + limit)]

    def failures(self, call: str) -> int:
        failed = (outcome.count for outcome in self._outcomes.get(call, ()) if outcome.error is not None)
        return min(s.MAX_FAILURES, sum(failed))

    def apps(self) -> list[s.AppRecord]:
        return list(self._apps.values())

    def version(self, app: str, number: int) -> s.Version | None:
        return next((version for version in self._versions.get(app, ()) if version.number == number), None)

    def version_heads(self, app: str, limit: int = 100) -> list[s.VersionHead]:
        latest = islice(reversed(self._versions.get(app, [])), limit)
        return [s.VersionHead(version.number, version.tag, version.deployed_at) for version in latest]

    def missing(self, digests: Iterable[str]) -> set[str]:
        return {*digests} - self._files.keys()

    def file(self, digest: str) -> bytes:
        return self._files[digest]

    # -- upkeep ------------------------------------------------------------------------------------

    def sweep(self, now: float, done: s.Done) -> None:
        for call, written in list(self._calls.items()):
            finished_at = written.record.finished_at
            if finished_at is None or finished_at > now - OUTCOMES_KEPT_SECONDS:
                continue
            self.drop_call(call)
            if finished_at > now - 2 * OUTCOMES_KEPT_SECONDS:
                written.record = replace(written.record, expired=True)
            else:
                del self._calls[call]
        done()

    def backup(self, path: str, answer: s.Answer) -> None:
        answer(InvalidError("this server keeps everything in memory and has nothing to copy"))


def _is_next(segment: s.PutInputs, record: s.CallRecord | None) -> bool:
    if record is None:
        return segment.first == 0
    ended = record.total is not None or record.cancelled or record.finished_at is not None
    return segment.first == record.submitted and not ended
