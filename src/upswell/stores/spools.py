"""What programs have written into their spools, and no server has kept: it becomes part of the file before all else.

A program may still be writing: what it writes later is the server's to take.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from .. import store as s
from ..store import Kept
from ..wire.ids import SPOOL
from ..wire.spool import SpoolReader
from .rows import Rows


def absorb(connection: apsw.Connection, folder: Path) -> None:
    """Write the calls of all spools in the folder to the file."""
    rows = Rows(connection)
    for path in sorted(folder.glob(f"{SPOOL}*")):
        try:
            spool = SpoolReader(str(path))
        except OSError:
            continue  # the server says so, when it looks at it
        try:
            connection.execute("BEGIN IMMEDIATE")
            last = _write(spool, connection, rows)
            connection.execute("COMMIT")
            spool.keep(last)
        except BaseException:
            if connection.in_transaction:  # else SQLite has ended it, as it does where the disk is full
                connection.execute("ROLLBACK")
            raise
        finally:
            spool.close()


def _write(spool: SpoolReader, connection: apsw.Connection, rows: Rows) -> int:
    """All calls that are not known; returns the number of the last record."""
    last = spool.kept
    for number, said in spool.take():
        last = number
        if said is None:
            continue  # it is no spawn, and nobody waits for it
        message, payload = said
        if connection.execute("SELECT 1 FROM calls WHERE id = ?", (message.call,)).get is None:
            kept = Kept(payload)
            rows.write(s.call_of_one(message.call, message.function, message.at, kept, method=message.method))
            rows.flush()
    return last
