"""What clients want with calls: inputs in, outcomes out, an early end.

Inputs of a call that outlives its client are offered to the store, and the core hears of them once they are kept. What
becomes of a call is the dispatcher's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from .. import store as s
from ..clock import Clock
from ..core import events as e
from ..core.snapshot import SavedCall, SavedSegment
from ..errors import ConflictError, ConnectionError, Error, ResourceExhaustedError, StoreError
from ..spec import no_call, no_function
from ..store import Kept, Outcome
from ..wire import messages as m
from ..wire.buffers import Block
from ..wire.codec import ProtocolError
from .connections import Connection
from .dispatcher import Dispatcher, send_outcome
from .model import Caller

COLLECTED_BYTES = 4 << 20  # of outcomes that are written to a collector before it must have read some
LOOK_AGAIN_SECONDS = 0.005  # until it has


class CallService:
    """The calls of all clients."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock, soon: Callable[..., object]) -> None:
        """`soon` calls a function in the next turn of the loop (`loop.call_soon`)."""
        self._dispatcher = dispatcher
        self._clock = clock
        self._arriving: dict[str, Caller] = {}  # of all calls, those that an earlier life had and that are not whole
        self._unended: dict[str, Caller] = {}  # those that are kept, until it is kept that no more inputs come
        dispatcher.map_has_room = partial(soon, self._let_in)

    # -- in ----------------------------------------------------------------------------------------

    def submit(self, connection: Connection, message: m.Submit, payload: memoryview) -> None:
        """Inputs of a call, the first of which make it."""
        dispatcher = self._dispatcher
        caller = dispatcher.calls.get(message.call)
        if caller is None and message.first == 0:
            caller = self._open(connection, message)
        elif caller is not None and caller.kept and message.first == 0:
            dispatcher.ledger.commit()  # it has come before, and that may linger
        kept = adopt(connection, payload, message.buffers)
        if caller is not None and not message.count:
            kept.close()
            caller.connection = connection
            self._keep_empty(message, caller)
            return
        if caller is None or (caller.kept and message.first >= caller.total >= 0):
            kept.close()
            connection.send(self._too_late(message))
            return
        if caller.kept:
            caller.connection = connection
            if not message.last and caller.total < 0:
                self._unended[message.call] = caller
            self._offer(message, caller, kept)
            return
        if message.kind != "map" or not caller.window.put(message, kept, caller.accepted):
            self._take(connection, message, caller, kept)

    def _take(self, connection: Connection, message: m.Submit, caller: Caller, kept: Kept) -> None:
        if message.last:
            caller.total = message.first + message.count
        owner = connection.name if message.kind != "spawn" else ""
        self._dispatcher.happened(submitted(message, owner), kept)

    def _let_in(self, caller: Caller) -> None:
        """Take what has come ahead of its turn, as far as there is room by now."""
        while segment := caller.window.next(caller.accepted):
            message, kept = segment
            if caller.connection is not None and self._dispatcher.calls.get(message.call) is caller:
                self._take(caller.connection, message, caller, kept)
            else:
                kept.close()
                caller.tell(self._too_late(message))

    def _open(self, connection: Connection, message: m.Submit) -> Caller:
        dispatcher = self._dispatcher
        caller = Caller(connection, message.kind, message.function, message.method, begun_at=dispatcher.ledger.now())
        dispatcher.calls[message.call] = caller
        caller.maker = connection.identity.app
        app = dispatcher.apps.get(caller.app)
        caller.kept = message.kind == "spawn" and app is not None and app.record is not None
        record = dispatcher.functions.get(message.function)
        if record is not None and (message.kind == "spawn" or message.parent):
            dispatcher.graph.begun(message.call, record, message.method, message.parent)
        return caller

    def _too_late(self, message: m.Submit) -> m.Message:
        """The answer to further inputs of a call that is not here any more: it has them, or was ended before."""
        if self._kept_with(message) is not None:
            return m.Accepted(message.call, message.first, message.count)
        why = "as its app was stopped, it was cancelled, or its program was away"
        return refusal(message, "missing", f"the call {message.call} has ended, {why}: call it again")

    def _kept_with(self, message: m.Submit) -> s.CallRecord | None:
        """The call, if these inputs of it are kept: a client that has lost its connection may offer them again."""
        known = self._dispatcher.store.call(message.call)
        if known is None or known.function != message.function or known.submitted < message.first + message.count:
            return None
        return known

    def _offer(self, message: m.Submit, caller: Caller, kept: Kept) -> None:
        """Have the inputs kept; only then do they exist."""
        writes: list[s.Write] = [s.PutInputs(message.call, message.first, message.count, message.last, kept)]
        if not message.first:
            at = self._dispatcher.ledger.now()
            writes.insert(0, s.OpenCall(message.call, message.function, message.kind, at, message.method, caller.maker))
        refusals = caller.refusals

        def answer(error: Error | None) -> None:
            kept.close()
            if refusals != caller.refusals:  # with an earlier segment this one was withdrawn, if it was kept at all
                words = "an earlier segment of the call was refused meanwhile"
                self._dispatcher.ledger.in_turn(lambda: refuse(message, caller, "exhausted", words))
            elif error is None:
                if message.last:
                    caller.total = message.first + message.count
                    self._unended.pop(message.call, None)
                self._dispatcher.happened(submitted(message, ""))
            else:
                self._not_kept(message, caller, error)

        self._dispatcher.ledger.offer(writes, answer)

    def _keep_empty(self, message: m.Submit, caller: Caller) -> None:
        """A call without inputs has ended as it comes: there is nothing to decide, and it is to be found."""
        call, dispatcher = message.call, self._dispatcher
        caller.total = 0
        if message.function not in dispatcher.functions:
            refuse(message, caller, "missing", no_function(message.function))
            dispatcher.forget(call)
        elif caller.kept:
            at = dispatcher.ledger.now()
            opened = s.OpenCall(call, message.function, message.kind, at, message.method, caller.maker)

            def answer(error: Error | None) -> None:
                if error is None:
                    caller.tell(m.Accepted(call, 0, 0))
                    dispatcher.ended(call, caller)
                else:
                    self._not_kept(message, caller, error)

            dispatcher.ledger.offer([opened, s.EndInputs(call, 0), s.FinishCall(call, at)], answer)
        else:
            caller.tell(m.Accepted(call, 0, 0))

    def _not_kept(self, message: m.Submit, caller: Caller, error: Error) -> None:
        """The store has refused the inputs, as it has them already, or otherwise."""
        if isinstance(error, ConflictError) and (known := self._kept_with(message)) is not None:
            caller.tell(m.Accepted(message.call, message.first, message.count))
            if known.finished_at is not None and not caller.accepted:
                self._dispatcher.forget(message.call)  # ended in an earlier life of the server
            return
        refuse(message, caller, "exhausted" if isinstance(error, ConflictError) else "full", str(error))
        if not message.first and not caller.accepted:
            self._dispatcher.forget(message.call)

    def go_on(self, connection: Connection, message: m.Restore, payload: memoryview) -> None:
        """A segment of a map that an earlier life had. Once all of it is here, the map goes on."""
        call, dispatcher = message.call, self._dispatcher
        kept = adopt(connection, payload, message.buffers)
        caller = dispatcher.calls.get(call)
        if caller is None:
            caller = Caller(connection, "map", message.function, message.method, accepted=message.submitted)
            caller.total, caller.arriving = message.total, []
            dispatcher.calls[call] = self._arriving[call] = caller
        if caller.arriving is None:
            kept.close()
            words = f"{call} was given up, as its client was away for too long: call it again"
            connection.send(refusal(message, "lost", words))
            return
        if message.count:
            dispatcher.store.put_inputs(call, message.first, kept)
            unsettled = tuple(message.unsettled)
            caller.arriving.append(SavedSegment(message.first, message.count, unsettled))
        if message.left:
            return
        segments, caller.arriving = tuple(caller.arriving), None
        caller.window.in_flight = sum(stop - start for segment in segments for start, stop in segment.unsettled)
        del self._arriving[call]
        total = None if message.total < 0 else message.total
        dispatcher.call_restored(
            e.CallRestored(
                SavedCall(
                    call, message.function, "map", message.submitted, total, False, segments, owner=connection.name
                )
            )
        )

    def end(self, call: str, total: int) -> None:
        """No more inputs of the call come."""
        caller = self._dispatcher.calls.get(call)
        if caller is not None and caller.window.ahead:
            caller.window.end()
        elif caller is not None and caller.kept:
            if caller.total >= 0:
                return  # that was said before, or it ended while its program was away
            # Of a call that never came to be there is nothing to end.
            write, ended = s.EndInputs(call, total), partial(self._end, call, total)
            self._dispatcher.ledger.offer([write], lambda error: None if error else ended())
        else:
            self._end(call, total)

    def _end(self, call: str, total: int) -> None:
        self._unended.pop(call, None)
        if caller := self._dispatcher.calls.get(call):
            caller.total = total
            for collector in caller.collectors:
                collector.send(m.CallDescribed(call, total))
        self._dispatcher.happened(e.InputsEnded(call, total))

    def cancel(self, connection: Connection, message: m.Cancel) -> None:
        """End the call early, or one input of it. Of what never came to be, or has ended, there is nothing to do."""
        event: e.CallCancelled | e.InputCancelled = e.CallCancelled(message.call, message.running, message.terminate)
        write: s.CancelCall | s.CancelInput = s.CancelCall(message.call)
        if message.position >= 0:
            event = e.InputCancelled(message.call, message.position, message.terminate)
            write = s.CancelInput(message.call, message.position)

        def answer(error: Error | None) -> None:
            if error is None:
                self._dispatcher.happened(event)
            if message.request:
                is_full = isinstance(error, ResourceExhaustedError)
                connection.send(m.Done(message.request, m.ErrorRecord("full", "", str(error)) if is_full else None))

        caller = self._dispatcher.calls.get(message.call)
        if caller is not None and message.position < 0:
            caller.window.close()
        if message.call in self._dispatcher.refused:  # the core does not know it, and will not
            self._dispatcher.forget(message.call)
            answer(None)
        elif caller is not None and caller.kept:
            self._dispatcher.ledger.commit()  # it may linger that the call has come
            self._dispatcher.ledger.offer([write], answer)
        else:
            answer(None)

    def restore(self, snapshot: s.Snapshot) -> None:
        """Calls that an earlier life of the server has left: whoever collects them finds them again."""
        methods, makers = dict(snapshot.methods), dict(snapshot.makers)
        for saved in snapshot.calls:
            caller = self._dispatcher.calls[saved.id] = Caller(
                None,
                saved.kind,
                saved.function,
                methods.get(saved.id, ""),
                makers.get(saved.id, ""),
                kept=True,
                accepted=saved.submitted,
                total=-1 if saved.total is None else saved.total,
            )
            if saved.total is None:
                self._unended[saved.id] = caller

    def expect_nobody(self) -> None:
        """Whoever has not come back by now to give more inputs to a call does not come."""
        self._end_those_of(None)

    # -- out ---------------------------------------------------------------------------------------

    def collect(self, connection: Connection, message: m.Collect) -> None:
        """Send the outcomes of a spawned call: those of the wanted that are here, and each that comes."""
        self._dispatcher.ledger.commit()  # what lingers of it is waited for now
        call, stop = message.call, None if message.stop < 0 else message.stop
        caller, record = self._dispatcher.calls.get(call), self._dispatcher.store.call(call)
        if record is not None and record.expired:
            reason = f"the results of {call} were kept for 7 days after its end, and are gone"
            connection.send(m.Failed(call, 0, 0, m.ErrorRecord("expired", "", reason)))
            return
        if record is None and (caller is None or caller.kind != "spawn"):
            connection.send(m.Failed(call, 0, 0, m.ErrorRecord("missing", "", no_call(call))))
            return
        # Before looking: what is kept meanwhile is sent as it comes.
        if caller is not None:
            others = [other for other in caller.collectors if other.is_open and other is not connection]
            caller.collectors = [*others, connection]
        self._send_outcomes(connection, call, self._dispatcher.store.outcomes(call, message.first, stop))

    def _send_more(self, connection: Connection, call: str, outcomes: Iterator[Outcome]) -> None:
        try:
            self._send_outcomes(connection, call, outcomes)
        except StoreError as error:
            connection.refuse(ProtocolError(str(error)))

    def _send_outcomes(self, connection: Connection, call: str, outcomes: Iterator[Outcome]) -> None:
        """As many as the collector has room for, and the others as it reads. At last, what there is in all."""
        while connection.is_open:
            if connection.unread >= COLLECTED_BYTES:
                self._clock.call_later(LOOK_AGAIN_SECONDS, self._send_more, connection, call, outcomes)
                return
            if (outcome := next(outcomes, None)) is None:
                connection.send(m.CallDescribed(call, self._total(call)))
                return
            send_outcome(connection, call, outcome)

    def _total(self, call: str) -> int:
        if caller := self._dispatcher.calls.get(call):
            return -1 if call in self._unended else caller.total
        record = self._dispatcher.store.call(call)
        return -1 if record is None or record.total is None else record.total

    def uncollect(self, connection: Connection, call: str) -> None:
        """The connection needs no more of the call."""
        caller = self._dispatcher.calls.get(call)
        if caller is not None and connection in caller.collectors:
            caller.collectors.remove(connection)

    def client_left(self, connection: Connection) -> None:
        """The client is gone: what it owned ends; what outlives it goes on."""
        self._dispatcher.happened(e.OwnerLeft(connection.name))
        for call in [call for call, one in self._dispatcher.refused.items() if one.connection is connection]:
            self._dispatcher.forget(call)  # the core never knew it
        for call in [call for call, one in self._arriving.items() if one.connection is connection]:
            del self._arriving[call]  # nor this one
            self._dispatcher.forget(call)
            self._dispatcher.store.drop_call(call)
        self._end_those_of(connection)

    def attend(self, connection: Connection, call: str) -> None:
        """The program that gives inputs to the call is here again, perhaps with nothing to say for long."""
        if (caller := self._unended.get(call)) is not None:
            caller.connection = connection

    def _end_those_of(self, connection: Connection | None) -> None:
        """Calls that outlive this client, and that it has left in the middle: they have the inputs that were taken."""
        for call, caller in list(self._unended.items()):
            if self._dispatcher.calls.get(call) is not caller:
                del self._unended[call]
            elif caller.connection is connection and caller.total < 0:
                caller.connection = None
                self._dispatcher.ledger.in_turn(partial(self._end_early, call, caller))

    def _end_early(self, call: str, caller: Caller) -> None:
        """All inputs that have come are taken, or refused."""
        if caller.connection is not None or caller.total >= 0 or self._dispatcher.calls.get(call) is not caller:
            return
        if not caller.accepted:
            self._dispatcher.forget(call)  # it never came to be
            return
        words = f"the program that spawned {call} has left, so it ends after {caller.accepted:,} inputs"
        self._dispatcher.say(words, function=caller.function)
        total = caller.total = caller.accepted  # who comes back while that is being kept is too late already
        self._dispatcher.ledger.decided(s.EndInputs(call, total), partial(self._end, call, total))


def submitted(message: m.Submit, owner: str) -> e.InputsSubmitted:
    """The message as an event."""
    return e.InputsSubmitted(
        message.call, message.function, message.kind, message.first, message.count, message.last, owner
    )


def refuse(message: m.Submit, caller: Caller, kind: m.ErrorKind, reason: str) -> None:
    """Say that the inputs are not taken, and why."""
    caller.tell(refusal(message, kind, reason))


def refusal(message: m.Submit | m.Restore, kind: m.ErrorKind, reason: str) -> m.Refused:
    """The answer to inputs that are not taken."""
    return m.Refused(message.call, message.first, message.count, m.ErrorRecord(kind, "", reason))


def adopt(connection: Connection, payload: memoryview, buffers: m.Buffers | None) -> Kept:
    """Take over the shared memory that came with a payload, and let the sender close its end."""
    if buffers is None:
        return Kept(payload)
    try:
        block = Block.adopt(buffers)
    except ConnectionError as error:
        raise ProtocolError(str(error)) from None
    connection.send(m.Release(buffers.descriptor))
    return Kept(payload, block)
