"""The same laws where connections are made anew, and where the server dies and all containers, some or none re-join."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from .accounts import Known
from .lives import Lives, may_rejoin
from .test_laws import EXAMPLES, PLAYED, History, one_of
from .world import World


class RestartedHistory(History):
    """What may happen, and that the server dies."""

    def new_world(self) -> World:
        self.lives = Lives()
        return self.lives

    @rule(survive=st.integers(0, 255), late=st.integers(0, 255), resending=st.booleans(), heard=st.booleans())
    def the_server_dies(self, survive: int, late: int, resending: bool, heard: bool) -> None:
        if heard:
            self.exchange()
        names = [*self.lives.away, *self.lives.containers]
        survivors = [name for number, name in enumerate(names) if survive >> number % 8 & 1]
        others = [name for number, name in enumerate(names) if late >> number % 8 & 1 and name not in survivors]
        self.lives.restart(survivors, others, resending=resending)

    @precondition(lambda self: self.connected())
    @rule(number=one_of, resending=st.booleans())
    def a_connection_is_made_anew(self, number: int, resending: bool) -> None:
        self.lives.reconnect(self.choose(self.connected(), number), resending=resending)

    def connected(self) -> list[Known]:
        return [known for known in self.lives.containers.values() if known.pool.alive and may_rejoin(known)]

    @precondition(lambda self: self.lives.away)
    @rule(number=one_of)
    def a_container_comes_back_late(self, number: int) -> None:
        self.lives.rejoin(self.choose(self.lives.away.values(), number))

    def teardown(self) -> None:
        for known in list(self.lives.away.values()):
            self.lives.rejoin(known)
        super().teardown()


TestRestarts = RestartedHistory.TestCase
TestRestarts.settings = settings(PLAYED, max_examples=EXAMPLES or 60)
