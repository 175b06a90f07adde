"""Plants known bugs, one at a time, in a copy of the source, and runs the tests that must notice: `make sabotage`.

A test suite is worth what it catches. Every bug here is one line that a tired person could write; every one must make
a test fail. The checkout itself is never touched. `python tests/sabotage.py take` plants only the bugs about that word.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAWS = (
    "tests/properties/test_crowds.py",
    "tests/properties/test_laws.py",
)  # for bugs that the laws must notice by themselves
TESTS = ("tests/core", "tests/transcripts", *LAWS)
REJOINING = ("tests/core/test_rejoining.py", "tests/conformance/test_rejoining.py", "tests/properties/test_restarts.py")
RESTARTS = ("tests/core/test_snapshot.py", "tests/stores", "tests/conformance/test_durable_stores.py")
GROUPS = ("tests/stores/test_groups.py",)
CODE = ("tests/server/test_code.py", "tests/sdk/test_source.py")
PACE = ("tests/sdk/test_pace.py",)
LOOKING = ("tests/server/test_listing.py", "tests/server/test_logs.py")
SESSIONS = ("tests/wire/test_delivery.py", "tests/server/test_sessions.py")
LEASES = ("tests/engines/test_leases.py", "tests/engines/test_link.py")
STOPPED = ("tests/server/test_stopped_apps.py",)
SECONDS = 300
RETURNING = ("tests/conformance/test_rejoining.py",)
SPARES = ("tests/conformance/test_spares.py",)


@dataclass(frozen=True)
class Bug:
    """What a tired person does to one line of a file."""

    name: str
    file: str
    line: str
    instead: str
    tests: tuple[str, ...] = TESTS


BUGS = [
    Bug("an input is delivered and still unsettled", "core/queue.py", "call.unsettled -= count", "pass"),
    Bug(
        "an output that comes twice is taken twice",
        "sdk/submission.py",
        "for start, stop in offer.unsettled(first, first + count):",
        "for start, stop in [(first, first + count)]:",
        ("tests/sdk/test_submission.py",),
    ),
    Bug(
        "a packet is read in the midst of a frame",
        "wire/channel.py",
        "if (shortcut := self._shortcut) is not None and not self._decoder.unfinished:",
        "if (shortcut := self._shortcut) is not None:",
        ("tests/wire/test_shortcut.py",),
    ),
    Bug(
        "the server is told of outputs that found no room",
        "wire/shortcut.py",
        "return False",
        "return True",
        ("tests/container/test_ranges.py", "tests/wire/test_shortcut.py"),
    ),
    Bug("a retry too many", "core/queue.py", "or failures > allowed:", "or failures > allowed + 1:"),
    Bug("retries at once", "core/queue.py", "(now + delay, self._tick,", "(now, self._tick,"),
    Bug("a killer is tried for ever", "core/queue.py", "losses >= MAX_ATTEMPTS_LOST", "losses > 10**9"),
    Bug("calls do not take turns", "core/queue.py", "call = self.turns.popleft()", "call = self.turns.pop()"),
    Bug("a limit is off by one", "core/queue.py", "pending + count > max", "pending + count >= max"),
    Bug(
        "who waits for room that never comes is not told", "core/pool.py", "self.queue.invite_all(out)", "pass", STOPPED
    ),
    Bug(
        "inputs of a call that has ended go unanswered",
        "server/calls.py",
        "connection.send(self._too_late(message))",
        "pass",
        STOPPED,
    ),
    Bug("attempts of a map without end pile up", "core/queue.py", "call.forget_attempts(segment)", "pass"),
    Bug("refused maps are forgotten", "core/queue.py", "self.refused[family][event.call] = event.count", "pass"),
    Bug("cancelled inputs go on waiting", "core/queue.py", "if held.call.cancelled:", "if False:"),
    Bug("delayed inputs survive their call", "core/queue.py", "if call.failures else []", "if False else []"),
    Bug(
        "what runs is not taken from what waits",
        "core/queue.py",
        "self.waiting -= stop - start\n        return",
        "return",
    ),
    Bug("the dead are blamed for all they held", "core/pool.py", "held, held.id in started,", "held, True,"),
    Bug(
        "a lent place counts as idle",
        "core/containers.py",
        "if container.ranges:\n            self.idle",
        "if running:\n            self.idle",
    ),
    Bug(
        "a range is asked back twice",
        "core/pool.py",
        "held.wanted_back = held.returned = True  # all",
        "held.wanted_back = held.returned = False  # all",
    ),
    Bug(
        "an input is cancelled with its neighbours",
        "core/pool.py",
        "alone = len(unwanted) == len(held) or",
        "alone = True or",
    ),
    Bug("a cancelled input waits again", "core/queue.py", "in sorted(call.unwanted, reverse=True):", "in ():"),
    Bug(
        "a cancelled input is tried again",
        "core/queue.py",
        'if kind == "cancelled" or call.cancelled or position in call.unwanted:',
        "if 0:",
    ),
    Bug("nothing is taken back", "core/matching.py", "elif wanted:\n", "elif False:\n"),
    Bug("old results count again", "core/pool.py", "held is None or event.start != held.next or", "held is None or"),
    Bug(
        "the newest idle one is drained",
        "core/containers.py",
        "iter(self.idle.values())",
        "reversed(self.idle.values())",
    ),
    Bug("a lowered maximum waits for less load", "core/pool.py", "            self.scaling.shed(now, out)\n", ""),
    Bug(
        "timeouts are not watched",
        "core/matching.py",
        "        self._containers.watch(container)\n",
        "",
    ),
    Bug("single use means two", "core/containers.py", "0 if spec.single_use and container.ranges else ", ""),
    Bug(
        "a part of a batch has to wait for ever",
        "core/pool.py",
        "moments.append(matching.batch_due_at())",
        "pass",
    ),
    Bug("a batch takes the places of its ranges", "core/model.py", "place = held.batch or held.id", "place = held.id"),
    Bug("only one of a lost batch is to blame", "core/pool.py", "held.stop if held.batch else min", "min"),
    Bug("the last comer's wait is what counts", "core/queue.py", "arrivals[0].since", "arrivals[-1].since"),
    Bug("a generator is begun again half way", "core/queue.py", "elif held.chunks:", "elif False:"),
    Bug(
        "retries yield values twice",
        "core/queue.py",
        "if self.retries and not held.chunks else",
        "if self.retries else",
    ),
    Bug("chunks go to who has left", "core/pool.py", "and not held.call.cancelled:", "and True:"),
    Bug(
        "a batch is one too large",
        "core/matching.py",
        "min(spec.concurrency.batch_size,",
        "min(spec.concurrency.batch_size + 1,",
        LAWS,
    ),
    Bug("a batch leaves before its time", "core/batching.py", "oldest_since + concurrency", "0 * concurrency", LAWS),
    Bug(
        "a batch is taken back",
        "core/containers.py",
        "container.inputs if concurrency.batch_size else taken",
        "taken",
        LAWS,
    ),
    Bug("chunks of an old attempt count", "core/pool.py", "event.first == held.chunks and", ""),
    Bug("resuming does not take the place back", "core/model.py", "sign = -1 if suspended else 1", "sign = -1"),
    Bug(
        "crashed starts are repeated at once",
        "core/starts.py",
        "now + autoscaler.backoff_seconds(self.failures)",
        "now",
    ),
    Bug("a roll-out ends what runs", "core/scaling.py", "        if container.ranges:\n", "        if False:\n"),
    Bug("who retires gets more work", "core/containers.py", "State.RETIRING, reason", "State.READY, reason"),
    Bug(
        "nobody stays until the next is ready",
        "core/scaling.py",
        "self._needed)\n        while containers.outdated and",
        "self._needed)\n        kept -= 1\n        while containers.outdated and",
    ),
    Bug(
        "a version that can't start goes on replacing",
        "core/scaling.py",
        "works = not self.starts.failures or",
        "works = True or",
    ),
    Bug(
        "one failed start keeps the outdated for ever",
        "core/scaling.py",
        "works = not self.starts.failures or containers.ready > len(containers.outdated)",
        "works = not self.starts.failures",
    ),
    Bug(
        "two go at the maximum",
        "core/scaling.py",
        "if containers.starting or self.decision.containers > kept",
        "if False",
    ),
    Bug("what retires is no load", "core/scaling.py", "running += containers.retiring", "pass"),
    Bug(
        "a deploy keeps the old limits",
        "core/queue.py",
        "self.retries = spec.retries",
        "self.retries = self.retries or spec.retries",
    ),
    Bug("what comes back still waits", "core/queue.py", "self.waiting -= stop - first", "pass", REJOINING),
    Bug(
        "who comes back late is believed",
        "core/queue.py",
        "or self._is_elsewhere(call, segment, start, first)",
        "",
        REJOINING,
    ),
    Bug(
        "grants wait for the next turn",
        "core/plane.py",
        "            pool.grant(now, out)\n        self",
        "            pass\n        self",
    ),
    Bug("what waits is at leisure", "core/plane.py", "if pool.is_pressing():", "if False:"),
    Bug(
        "grants begin before all are back",
        "core/plane.py",
        "self._recovers = True",
        "self._recovers = False",
        REJOINING,
    ),
    Bug(
        "what was lost on the way is forgotten",
        "core/pool.py",
        'self.queue.put_back(held, before, until, out, "its results were lost with its connection")',
        "pass",
        REJOINING,
    ),
    Bug(
        "results that come again count twice",
        "core/pool.py",
        "if held is None or event.start != held.next or",
        "if held is None or",
        REJOINING,
    ),
    Bug(
        "who comes back is not counted",
        "core/containers.py",
        "self.by_id[container.id] = container\n        self.ready += 1",
        "self.by_id[container.id] = container",
        REJOINING,
    ),
    Bug("no room is waited for in silence", "core/scaling.py", "if self._short_since > -NEVER:", "if False:"),
    Bug("one container may have what all nodes have", "core/placement.py", "self.sizes or (Size", "(Size"),
    Bug("alternatives are all reserved", "core/placement.py", "if spec.resources.gpus else spec", "if False else spec"),
    Bug(
        "GPUs of a kind are of all kinds", "core/placement.py", "self.gpus or {}).get(kind,", 'self.gpus or {}).get("",'
    ),
    Bug(
        "GPUs are lost with their container",
        "engines/devices.py",
        "if name in self._free or name in held",
        "if name in self._free",
        ("tests/engines/test_devices.py",),
    ),
    Bug("nobody wakes who waits for room", "core/plane.py", "if pool is not granted:", "if False:"),
    Bug("calls outlive their owner", "core/plane.py", "self._owned.setdefault(call.owner, {})[call.id] = None", "pass"),
    Bug("the agenda keeps what is outdated", "core/agenda.py", "> 2 * len(self._entries) + FEW", "> 10**9"),
    Bug("a call that is new waits for what others hold", "core/plane.py", "pool.make_way(call, out)", "pass"),
    Bug(
        "outputs are pickled when they are sent",
        "container/outbox.py",
        "        self._pack(work)\n        work.packed_at",
        "        work.packed_at",
        ("tests/container/test_ranges.py",),
    ),
    Bug("a range is twice its fair share", "core/dispatch.py", "(2 * max(1, containers))", "max(1, containers)"),
    Bug("the maximum is ignored", "core/autoscaler.py", "wanted.containers > settings.ceiling:", "False:"),
    Bug(
        "the buffer stays when all is done",
        "core/autoscaler.py",
        'Decision(settings.floor, "idle"',
        'Decision(settings.floor + settings.buffer, "idle"',
    ),
    Bug(
        "what runs grows no older",
        "core/scaling.py",
        "now + autoscaler.reconsider_seconds(load, self.decision, self._estimates)",
        "NEVER",
    ),
    Bug("the window is not the longest", "core/autoscaler.py", "return min(window, max(", "return max(window, max("),
    Bug(
        "a restart runs again what has an outcome",
        "core/snapshot.py",
        "for start, stop in kept.unsettled]",
        "for start, stop in ((kept.first, kept.first + kept.count),)]",
        RESTARTS,
    ),
    Bug("a restart forgets attempts", "core/snapshot.py", "call.failures[position] = failures", "pass", RESTARTS),
    Bug("a restart goes on with what was cancelled", "core/queue.py", "if saved.cancelled:", "if False:", RESTARTS),
    Bug(
        "a restart finds outcomes only", "stores/memory.py", "within = [span for", "within = [] and [span for", RESTARTS
    ),
    Bug(
        "steps that must wait are refused",
        "stores/writer.py",
        "self._waiting.append(step)\n        else:\n            self._answers.append((step.done, reason",
        "self._answers.append((step.done, None))\n        else:\n            self._answers.append((step.done, reason",
        RESTARTS,
    ),
    Bug(
        "a restart does not know which calls have attempts to drop",
        "stores/rows.py",
        "{number for (number,) in connection.execute(noted)}",
        "set[int]()",
        RESTARTS,
    ),
    Bug("what has gone stays in memory", "stores/sqlite.py", "self._recent.drop(call, first)", "pass", RESTARTS),
    Bug(
        "buffers stay when their segment goes",
        "stores/gathered.py",
        "VALUES {}) AND block IS NULL",
        "VALUES {})",
        RESTARTS,
    ),
    Bug("a transaction ends without what it gathered", "stores/writer.py", "self._rows.flush()", "pass", RESTARTS),
    Bug(
        "what is gathered is written after what changes it",
        "stores/rows.py",
        "                self.flush()\n                self._write(write)",
        "                self._write(write)",
        GROUPS,
    ),
    Bug(
        "what was rolled back is written with what comes next",
        "stores/rows.py",
        "self._gathered.clear()",
        "pass",
        GROUPS,
    ),
    Bug(
        "a call that ends as it is gathered never ends", "stores/rows.py", "call.finished_at = write.at", "pass", GROUPS
    ),
    Bug(
        "one segment with buffers keeps those beside it from being dropped",
        "stores/gathered.py",
        "left = dropped",
        "pass",
        GROUPS,
    ),
    Bug("a refused step is half kept", "stores/writer.py", 'self._connection.execute("ROLLBACK")', "pass", RESTARTS),
    Bug("the loop waits for a slow disk", "stores/writer.py", "self._seconds > QUICK_SECONDS", "False", RESTARTS),
    Bug("a file of code lies outside its tree", "code.py", '{"", ".", ".."} & {*parts}', '{""} & {*parts}', CODE),
    Bug(
        "a file of code is what its sender says",
        "code.py",
        "if sha256(content).hexdigest() != digest:",
        "if False:",
        CODE,
    ),
    Bug("a tree knows where it came from", "sdk/source.py", 'sys_path=("",),', "sys_path=environment.sys_path,", CODE),
    Bug(
        "what lies beside wins over what was imported",
        "sdk/source.py",
        "        _let_go(tree, name)",
        "        pass",
        CODE,
    ),
    Bug(
        "virtual environments travel",
        "sdk/source.py",
        'os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))',
        "False",
        CODE,
    ),
    Bug("no map is ever brisk", "sdk/pace.py", "now - self._timed_at < BRISK_SECONDS", "False", PACE),
    Bug("what is installed travels", "sdk/source.py", "if INSTALLED_FOLDERS & {*place.split(os.sep)} or", "if", CODE),
    Bug(
        "who is stopped by hand is blamed", "core/pool.py", '"cancelled", "it was stopped"', '"start", "it was stopped"'
    ),
    Bug(
        "a long listing is made in one go",
        "server/listing.py",
        "if time.perf_counter() >= until:\n                return False",
        "if not until:\n                return False",
        LOOKING,
    ),
    Bug("a log loses what comes as it is read", "server/logs.py", "request, held, True", "request, [], True", LOOKING),
    Bug("a half line of a log spoils the next", "server/logfiles.py", "and _is_whole(files[-1])", "", LOOKING),
    Bug("a log has no limit", "server/logfiles.py", "if file.size >= FILE_BYTES:", "if not file.size:", LOOKING),
    Bug("what has arrived comes again", "wire/delivery.py", "self._confirmed = count", "pass", SESSIONS),
    Bug("what is read again counts twice", "wire/delivery.py", "message is self._last or ", "", ("tests/wire",)),
    Bug(
        "what is said meanwhile is lost",
        "server/connections.py",
        "self._delivery.send(message, payload)",
        "pass",
        SESSIONS,
    ),
    Bug(
        "anybody may go on with a session",
        "server/connections.py",
        "return earlier if same and",
        "return earlier if",
        SESSIONS,
    ),
    Bug(
        "what the server may not know is not told again",
        "container/link.py",
        "again += [(sent.message, sent.packed.data) for sent in self._sent]",
        "pass",
        RETURNING,
    ),
    Bug(
        "what the server knows is told again",
        "container/link.py",
        "self.work.processed = start + count",
        "pass",
        RETURNING,
    ),
    Bug(
        "a lease that Ray does not have is let in",
        "engines/ray/returning.py",
        "return hello.lease in self._silent and hello.containers_dial == containers_dial",
        "return hello.containers_dial == containers_dial",
        LEASES,
    ),
    Bug(
        "what is in a lease is told twice",
        "engines/ray/returning.py",
        "return self._silent.pop(lease, self) is None",
        "return self._silent.get(lease, self) is None",
        LEASES,
    ),
    Bug(
        "a lease that is away gets containers",
        "engines/ray/stock.py",
        "return self.link is not None and self.lost_at is None and not self.is_ending",
        "return self.link is not None and not self.is_ending",
        LEASES,
    ),
    Bug(
        "what a lease lacks is not said again",
        "engines/ray/link.py",
        "lacking = self._delivery.resume(received)",
        "self._delivery.resume(received); lacking = []",
        LEASES,
    ),
    Bug(
        "a spare is never named",
        "container/zygote.py",
        "child, self._spare, self._grew_at = self._spare, None, monotonic()",
        "child, self._grew_at = None, monotonic()",
        SPARES,
    ),
    Bug(
        "a spare has no limit of memory",
        "container/birth.py",
        "group is not None and group.enter(self.process)",
        "False",
        SPARES,
    ),
    Bug(
        "a spare is a container of the function that it was made for",
        "container/birth.py",
        "control.Name(launch, in_group, body is self.body)",
        "control.Name(launch, in_group, True)",
        SPARES,
    ),
    Bug(
        "what was ready is told to who has its number by now",
        "container/zygote.py",
        "if known.get(key.fd) is key:",
        "if key.fd in known:",
        ("tests/container/test_zygote.py",),
    ),
    Bug(
        "a zygote is told of the first function alone",
        "engines/local.py",
        "if zygote.expects != function:",
        "if zygote.expects is None:",
        SPARES,
    ),
    Bug(
        "the root zygote forgets its zygotes",
        "container/root.py",
        "self._kept[process] = (engines, parcel)",
        "pass",
        ("tests/conformance/test_succession.py",),
    ),
    Bug(
        "a server does not wait for its containers",
        "server/rejoining.py",
        "await self._gathered.wait()",
        "pass",
        ("tests/server/test_rejoining.py",),
    ),
    Bug(
        "what is settled runs again after a restart",
        "server/calls.py",
        "unsettled = tuple(message.unsettled)",
        "unsettled = ((message.first, message.first + message.count),)",
        SESSIONS,
    ),
    Bug(
        "a call that its program has left never ends",
        "server/calls.py",
        "self._dispatcher.ledger.decided(s.EndInputs(call, total), partial(self._end, call, total))",
        "pass",
        ("tests/server/test_kept_apps.py",),
    ),
    Bug(
        "what a spool has accepted is refused",
        "core/queue.py",
        'reason = "" if event.accepted else self',
        "reason = self",
        ("tests/core/test_plane.py",),
    ),
    Bug(
        "a spool is begun again before it is kept",
        "wire/spool.py",
        "if self._head()[0] < self._number:",
        "if self._head()[0] < 0:",
        ("tests/wire/test_spool.py",),
    ),
    Bug(
        "half a record is taken for one",
        "wire/spool.py",
        "if crc32(data[begin - _NUMBER.size : at]) != checksum:",
        "if False:",
        ("tests/wire/test_spool.py",),
    ),
    Bug(
        "a reader reads on in an earlier round",
        "wire/spool.py",
        "if number != first or size > MAX_RECORD_BYTES or at > len(data):",
        "if size > MAX_RECORD_BYTES or at > len(data):",
        ("tests/wire/test_spool.py",),
    ),
    Bug(
        "a spool is used after a write was interrupted",
        "wire/spool.py",
        """        self.is_usable = False
        if os.pwrite""",
        """        if os.pwrite""",
        ("tests/wire/test_spool.py",),
    ),
    Bug(
        "what a program has written comes after what it says",
        "server/peers.py",
        "self._spools.look()  # what is in them was said before",
        "pass",
        ("tests/server/test_spools.py",),
    ),
    Bug(
        "a permit outlives the function",
        "server/dispatcher.py",
        "        self.leaving()\n",
        "",
        ("tests/server/test_spools.py",),
    ),
    Bug(
        "a spool may hold more than the limit has room for",
        "server/spools.py",
        "self._room(function) >= (len(self._spools) + 1) * MOST_RECORDS",
        "True",
        ("tests/server/test_spools.py",),
    ),
    Bug(
        "a server begins without what is in spools",
        "stores/file.py",
        "        absorb(connection, spools)\n",
        "        pass\n",
        ("tests/server/test_spools.py",),
    ),
    Bug(
        "a full disk keeps a server with spools from starting",
        "stores/spools.py",
        "if connection.in_transaction:",
        "if True:",
        ("tests/server/test_spools.py",),
    ),
    Bug(
        "what a spool has is let go of before it is on disk",
        "server/spools.py",
        "dispatcher.ledger.decided(inputs, is_kept, may_linger=True)",
        "is_kept(), dispatcher.ledger.decided(inputs, may_linger=True)",
        ("tests/server/test_spools.py",),
    ),
]


def plant(bug: Bug, source: Path) -> None:
    """Change the line, which must be there exactly once, or the list is out of date."""
    path = source / "upswell" / bug.file
    text = path.read_text()
    if (found := text.count(bug.line)) != 1:
        sys.exit(f"{bug.name}: {bug.file} has {bug.line!r} {found} times; bring tests/sabotage.py up to date")
    path.write_text(text.replace(bug.line, bug.instead))


def who_notices(bug: Bug) -> str:
    """The first test that fails with the bug, or nothing."""
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        copy = Path(folder)
        for part in ("src", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "acceptance"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        plant(bug, copy / "src")
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "UPSWELL_SABOTAGE": "1",
        }
        environment.pop("UPSWELL_EXAMPLES", None)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--timeout=60"]
        done = subprocess.run(
            [*command, *bug.tests],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    if done.returncode not in (0, 1):
        sys.exit(f"{bug.name}: the tests could not be run:\n{done.stdout}{done.stderr}")
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def main(words: list[str]) -> int:
    """Plant the bugs whose name or file has one of the words, or all; 1 if one of them is not caught."""
    chosen = [bug for bug in BUGS if not words or any(word in f"{bug.name} {bug.file}" for word in words)]
    missed = 0
    for bug in chosen:
        began = time.monotonic()
        noticed = who_notices(bug)
        missed += not noticed
        seconds = time.monotonic() - began
        print(f"{bug.name:<45} {bug.file:<20} {seconds:5.1f} s  {noticed or 'NOT CAUGHT'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} bugs caught")
    return 1 if missed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
