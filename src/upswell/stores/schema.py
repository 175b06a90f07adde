"""The tables of a store's file, and how a file of an earlier version becomes one of this version.

A migration is only ever added. Each runs in a transaction of its own together with its number, so a server that is
killed in the middle of one begins it again. The reasons are in docs/design/0012-what-outlives-the-server.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from ..errors import StoreError

APPLICATION = 0x7570_7377  # "upsw", in the header of the file

FIRST = """
CREATE TABLE server (lives INTEGER NOT NULL) STRICT;  -- one row; counts how often the file was opened
INSERT INTO server VALUES (0);

-- Numbers come in order, so what is written together stands together; ids are chosen by clients.
CREATE TABLE calls (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    function TEXT NOT NULL,
    method TEXT NOT NULL,        -- of a class's objects; '' for a function
    maker TEXT NOT NULL,         -- the app whose container has made it, or '(schedule)'; '' where a program outside has
    kind TEXT NOT NULL,
    submitted INTEGER NOT NULL,  -- inputs accepted; the next segment begins here
    total INTEGER,               -- known once no more come
    cancelled INTEGER NOT NULL DEFAULT 0,
    submitted_at REAL NOT NULL,
    finished_at REAL,            -- every input is settled
    expired INTEGER NOT NULL DEFAULT 0  -- the outcomes were kept long enough and are gone
) STRICT;
CREATE INDEX calls_unfinished ON calls (number) WHERE finished_at IS NULL;
CREATE INDEX calls_finished ON calls (expired, finished_at) WHERE finished_at IS NOT NULL;

-- A segment is here until each of its inputs is within an outcome. The indexes hold all that a start reads.
CREATE TABLE segments (
    number INTEGER PRIMARY KEY,
    call INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    block INTEGER,               -- the buffers beside the payload
    payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX segments_by_call ON segments (call, first, count);

CREATE TABLE outcomes (
    number INTEGER PRIMARY KEY,
    call INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    block INTEGER,
    error TEXT,                  -- JSON; NULL for outputs
    payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX outcomes_by_call ON outcomes (call, first, count);
CREATE INDEX outcomes_failed ON outcomes (call, count) WHERE error IS NOT NULL;

CREATE TABLE attempts (
    call INTEGER NOT NULL,
    position INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    PRIMARY KEY (call, position)
) STRICT, WITHOUT ROWID;

-- Buffers in pieces of limited size: as large as the disk, and never in memory as a whole.
CREATE TABLE blocks (number INTEGER PRIMARY KEY, size INTEGER NOT NULL) STRICT;
CREATE TABLE pieces (
    number INTEGER PRIMARY KEY,
    block INTEGER NOT NULL REFERENCES blocks ON DELETE CASCADE,
    content BLOB NOT NULL
) STRICT;
CREATE INDEX pieces_by_block ON pieces (block);

CREATE TABLE apps (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,    -- the one that is served; 0: none
    detached INTEGER NOT NULL
) STRICT;
CREATE TABLE versions (
    app TEXT NOT NULL,
    number INTEGER NOT NULL,
    tag TEXT NOT NULL,
    deployed_at REAL NOT NULL,
    functions TEXT NOT NULL,     -- JSON
    PRIMARY KEY (app, number)
) STRICT;
CREATE TABLE contents (digest TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE files (
    app TEXT NOT NULL,
    version INTEGER NOT NULL,
    path TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES contents,
    PRIMARY KEY (app, version, path),
    FOREIGN KEY (app, version) REFERENCES versions ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX files_by_digest ON files (digest);

CREATE TABLE derived (function TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;  -- JSON
CREATE TABLE settings (function TEXT PRIMARY KEY, settings TEXT NOT NULL) STRICT;
CREATE TABLE fires (function TEXT PRIMARY KEY, moment REAL NOT NULL) STRICT;
"""

SECOND = """
CREATE TABLE cancelled_inputs (
    call INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (call, position)
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (FIRST, SECOND)


def migrate(connection: apsw.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the file up to the last migration; `StoreError` when it is a newer one's, or another program's."""
    path = connection.filename
    present, application = connection.pragma("user_version"), connection.pragma("application_id")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if tables and application != APPLICATION:
        raise StoreError(f"{path} is a database of another program: move it away, or set UPSWELL_HOME")
    if present > len(migrations):
        raise StoreError(
            f"{path} was written by a newer upswell (format {present}, this one knows {len(migrations)}): "
            "use that version, or put back a copy made before"
        )
    for number, script in enumerate(migrations[present:], present + 1):
        with connection:
            connection.execute(script)
            connection.execute(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {number}")
