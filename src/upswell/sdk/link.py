"""The way to the server: a connection, and where the server has an address, another one when that breaks.

To one and the same server both sides go on where they were, frame for frame. A server that was started again begins
another `life`: what was said before is forgotten, and whoever said it says it again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import AuthError, ConnectionError, Error, InternalFailure, InvalidError
from ..home import Server
from ..wire import messages as m
from ..wire import reentry
from ..wire.channel import Channel, dial
from ..wire.codec import Bytes, Frame, ProtocolError, encode_parts
from ..wire.reentry import unheld
from ..wire.turns import Turns
from . import context, output

if TYPE_CHECKING:
    from ..wire.delivery import Delivery
    from .dual import Wait
    from .inbox import Inbox

RECONNECT_SECONDS = 60.0  # a lost connection is tried again for so long; UPSWELL_RECONNECT_SECONDS says otherwise
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0  # between tries
TRY_SECONDS = 5.0  # that a server may take to answer one
LAST_WORDS_SECONDS = 1.0  # for what the server has said before it closed the connection
LOOK_MS = 1000  # until a thread that reads for itself looks whether a signal has come, and who reads now
FAREWELL_SECONDS = 0.5  # for a frame that is being written as the connection is closed

Route = Callable[[m.Message, memoryview], None]


class Link:
    """Frames to and from the server. Any thread may send; one reads.

    Where it is not known how to find the `server` again, the connection is the only one. A thread that waits for a
    call, and is the only one to wait, reads the outcome for itself.
    """

    def __init__(self, channel: Channel | None, server: Server | None) -> None:
        """Without a `channel`, whoever reads makes one to the server, with the patience that a lost one is worth."""
        self.lock = threading.RLock()  # held while something is sent, and while a life begins
        self._ordered = reentry.lock()  # held from when a frame of a session is sent until it is counted
        self.life = 1
        self.spools = ""  # the directory for a spool of this program, where it may have one
        self.lost: Error | None = None  # why there is no connection any more, and will be none
        self._channel = channel
        self._server = server
        self._patience = _patience() if server else 0.0  # in seconds
        self._session = os.urandom(16).hex() if server else ""
        self._delivery = begun_delivery() if server else None  # `None`: a connection that is lost is lost for good
        self._released: list[m.Release] = []  # while the connection was broken
        self._dismissed = False
        self._closing = threading.Event()
        self._tried: Channel | None = None  # a connection that is being made
        self._reader = 0  # the thread that reads
        self._ended = threading.Event()  # nothing more is read
        self._turns = Turns()
        self._successor: Wait | None = None  # whose thread would read for itself, if nobody else did
        if channel is None:
            return
        try:
            channel.send(m.Hello(m.PROTOCOL, "client", server.token if server else "", os.getpid(), self._session))
        except OSError:
            if server is None:
                raise
            # The server was killed as it was dialled: the reader sees it, too, and dials again.

    @property
    def is_broken(self) -> bool:
        """Whether there is no connection just now."""
        return self._channel is None

    def send(self, message: m.Message, payload: Bytes = b"", life: int = 0) -> None:
        """Send a frame, where a `life` is given only in that one; `ConnectionError` when the connection is lost.

        While it is merely broken, the frame is kept for when it is mended.
        """
        if self._delivery is None and self._channel is not None:
            try:
                self._channel.send(message, payload)
            except OSError:
                if threading.get_ident() != self._reader:
                    self._turns.want()
                    self._ended.wait(LAST_WORDS_SECONDS)  # the server may have said why
                raise self.lost or lost_connection() from None
            return
        with self.lock:
            if self.lost is not None:
                raise type(self.lost)(*self.lost.args)
            if life in (0, self.life):
                with unheld(self._ordered):
                    self._send(message, payload)

    def _send(self, message: m.Message, payload: Bytes) -> None:
        """What was counted and did not arrive goes by the next connection, also where it is interrupted on its way."""
        if (channel := self._channel) is None:
            encode_parts(message, payload)  # what is too large for a frame is refused now
            if isinstance(message, m.Release):
                self._released.append(message)
        if self._delivery is not None:
            self._delivery.send(message, payload)
        if channel is None:
            return
        try:
            channel.send(message, payload)
        except OSError:
            pass  # the reader sees it, too
        except Error:  # nothing of it was written
            if self._delivery is not None:
                self._delivery.withdraw(message)
            raise
        except BaseException:  # from outside, such as Ctrl-C: how far the frame has come nobody knows
            channel.shutdown()
            raise

    def read(self, route: Route, restarted: Callable[[], None]) -> Error:
        """Hand frames to `route` until the connection is lost for good; returns why.

        As another life of the server begins, `restarted` is called, before anybody can send to it.
        """
        self._reader = threading.get_ident()
        self._turns.take(lambda: False)
        first: list[Frame] = []
        try:
            if (channel := self._channel) is None:
                channel, first = self._meet()
            while True:
                self._read(channel, first, route)
                if self._delivery is None or self._dismissed or self._closing.is_set():
                    break
                channel, first = self._mend(channel, restarted)
        except (ConnectionError, AuthError) as error:
            self.lost = self.lost or error
        except (OSError, ProtocolError) as error:
            self.lost = self.lost or ConnectionError(f"the connection to the server was lost: {error}")
        except Exception as error:  # a defect, and nobody is to wait for ever because of it
            self.lost = InternalFailure(f"nothing is read any more, after {type(error).__name__}: {error}")
            self.lost.__cause__ = error
        with self.lock:
            self.lost = self.lost or lost_connection()
        self._ended.set()
        return self.lost

    def _read(self, channel: Channel, frames: list[Frame], route: Route) -> None:
        try:
            while True:
                for message, payload in frames:
                    if (delivery := self._delivery) is not None and (due := delivery.take(message, payload)):
                        self.send(due)
                    route(message, payload)
                if (successor := self._successor) is not None and successor.done:
                    self._successor = None
                    self._turns.give()
                    self._turns.take(lambda: True)
                if not (frames := channel.receive()):
                    return
        except OSError:
            if self._delivery is None:
                raise

    def read_for(self, inbox: Inbox, wait: Wait) -> bool:
        """Read in this thread the one frame that the inbox waits for; false where something else is to be read, or
        another thread is reading. That one lets others read once this wait is over.
        """
        if (channel := self._channel) is None or not channel.may_peek:
            self.read_elsewhere()
            return False
        if self._turns.pass_by(self._hand_over, (inbox, wait)):
            return True
        self.read_elsewhere()
        self._successor = wait
        return False

    def _hand_over(self, about: tuple[Inbox, Wait]) -> bool:
        (inbox, wait), channel, turns = about, self._channel, self._turns
        assert channel is not None
        if wait.done or inbox.frames:
            return True  # it came before this thread had the right to read, after which it would not come
        while turns.is_passing() and not channel.wait_to_peek(LOOK_MS):
            pass
        frame = channel.peek() if turns.is_passing() else None
        if frame is None or not inbox.is_answered_by(frame[0]):
            return False
        return inbox.take_here(partial(self._move, channel, frame, inbox))

    def _move(self, channel: Channel, frame: Frame, inbox: Inbox) -> None:
        due = self._delivery.take(*frame) if self._delivery is not None else None
        channel.move(inbox.frames)
        if due is not None:
            self.send(due)

    def read_elsewhere(self) -> None:
        """Have the steady thread read, and go on with that: nobody who waits now could read for itself."""
        self._successor = None
        if self._turns.is_open:
            self._turns.want()

    def close(self) -> None:
        """End the connection; whoever reads ends, too."""
        self._closing.set()
        self._turns.want()
        if self._delivery is not None and self.lock.acquire(timeout=FAREWELL_SECONDS):
            try:
                self.send(m.Bye("the program has ended"))
            except Error:
                pass  # it is lost already, or was refused
            self.lock.release()
        for channel in (self._channel, self._tried):
            if channel is not None:
                channel.shutdown()

    def release(self) -> None:
        """After `close`, once nobody reads any more: let go of the descriptor."""
        if self._channel is not None:
            self._channel.close()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's."""
        for channel in (self._channel, self._tried):
            if channel is not None:
                channel.forget()

    # -- what the server says of the connection ----------------------------------------------------

    def welcomed(self, welcome: m.Welcome) -> None:
        """The server has answered; of one that keeps no sessions nothing needs to be kept here."""
        self.spools = welcome.spools
        if not welcome.keeps_session:
            with self.lock:
                self._delivery = None

    def confirmed(self, count: int) -> None:
        """So many frames have arrived there."""
        with self.lock:
            if self._delivery is not None:
                self._delivery.confirm(count)

    def dismissed(self, bye: m.Bye) -> None:
        """The server closes the connection, and would do so again."""
        self._dismissed = True
        self.lost = farewell(bye)

    # -- dialling, and mending ---------------------------------------------------------------------

    def _meet(self) -> tuple[Channel, list[Frame]]:
        """The first connection: what was said so far leaves over it. The frames that came over it already."""
        channel, welcome, frames = self._dial_again(0.0)
        self._begin(channel, replace(welcome, resumed=True), lambda: None)
        self.welcomed(welcome)
        return channel, frames

    def _mend(self, broken: Channel, restarted: Callable[[], None]) -> tuple[Channel, list[Frame]]:
        """Another connection, with the frames that came over it so far; `ConnectionError` where there is none."""
        with self.lock:
            self._channel = None
        broken.shutdown()
        try:
            channel, welcome, frames = self._dial_again(FIRST_PAUSE_SECONDS)
        except BaseException:
            broken.close()
            raise
        channel.succeed(broken)
        self._begin(channel, welcome, restarted)
        return channel, frames

    def _dial_again(self, pause: float) -> tuple[Channel, m.Welcome, list[Frame]]:
        """Try, with growing pauses, for as long as it is worth it."""
        patience, began, said = self._patience, monotonic(), False
        while not self._closing.wait(max(0.0, min(pause, began + patience - monotonic()))):
            try:
                found = self._try(min(TRY_SECONDS, max(pause, began + patience - monotonic())))
            except (Error, OSError) as error:
                if self._dismissed:
                    raise
                if monotonic() - began >= patience:
                    words = f"the connection to the server was lost, and {patience:g} s of trying did not bring it back"
                    raise ConnectionError(f"{words}: {error}") from None
                if not said:
                    output.say(f"the connection to the server is lost, trying again for {patience:g} s")
                    said = True
                pause = min(max(2 * pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
                continue
            if said:
                output.say(f"the server is back after {monotonic() - began:.1f} s")
            return found
        raise lost_connection()

    def _try(self, seconds: float) -> tuple[Channel, m.Welcome, list[Frame]]:
        import select  # by few programs, and late

        assert self._delivery is not None and self._server is not None
        server, received = self._server, self._delivery.received
        self._tried = channel = dial(server.address, seconds, ca=server.ca)
        try:
            channel.send(m.Hello(m.PROTOCOL, "client", server.token, os.getpid(), self._session, received))
            poller = select.poll()
            poller.register(channel.fileno(), select.POLLIN)
            if not poller.poll(1000 * seconds):
                raise ConnectionError(f"the server at {server.address} does not answer")
            frames = channel.receive()
            match frames[0][0] if frames else None:
                case m.Welcome() as welcome:
                    return channel, welcome, frames[1:]
                case m.Bye() as bye if context.server is None:
                    self.dismissed(bye)
                case m.Bye() as bye:
                    raise farewell(bye)  # the container that this runs in may not be known there yet
                case None if server.address.startswith("tcp:"):
                    from ..wire.network import why_silent

                    if reason := why_silent(server.address, seconds):
                        self._dismissed, self.lost = True, ConnectionError(reason)
            raise self.lost or ConnectionError(f"the server at {server.address} closed the connection")
        except BaseException:
            channel.close()
            raise
        finally:
            self._tried = None

    def _begin(self, channel: Channel, welcome: m.Welcome, restarted: Callable[[], None]) -> None:
        """Go on over this connection."""
        with self.lock:
            self._channel = channel
            released, self._released = self._released, []
            assert self._delivery is not None
            self.spools = welcome.spools
            if welcome.resumed:
                try:
                    for release in released:
                        channel.send(release)
                    for message, payload in self._delivery.resume(welcome.received):
                        channel.send(message, payload)
                except OSError:
                    pass  # the reader sees it, too
            else:
                self.life += 1
                self._delivery = begun_delivery() if welcome.keeps_session else None
                restarted()


def _patience() -> float:
    """For how many seconds a lost connection is tried again; `InvalidError` where the environment says no number."""
    said = os.environ.get("UPSWELL_RECONNECT_SECONDS") or RECONNECT_SECONDS
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # nor is NaN
        raise InvalidError(f"UPSWELL_RECONNECT_SECONDS must be a number of seconds from 0 on, not {said!r}")
    return seconds


def begun_delivery() -> Delivery:
    """That of a session of which nothing was said yet."""
    from ..wire.delivery import Delivery  # no business of a program with a private server

    return Delivery()


def farewell(bye: m.Bye) -> Error:
    """The error of a connection that the server has closed with these words."""
    if bye.denied:
        return AuthError(f"the server does not let this program in: {bye.reason} (UPSWELL_TOKEN)")
    return ConnectionError(f"the server closed the connection: {bye.reason}")


def lost_connection() -> ConnectionError:
    """The error of a connection that can't be mended."""
    return ConnectionError("the server is gone; what it had not returned is lost: run the program again")
