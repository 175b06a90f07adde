"""The tokens that open the server to other machines: kept as hashes in the home, made and revoked while it runs.

The file is shared by the server, which notes when a token was last used, and the command line: whoever changes it holds
its lock, and readers see it whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import InvalidError, NotFoundError, StoreError
from ..home import open_file

FILE = "tokens.json"
SECRET_BYTES = 32
USE_SECONDS = 60.0  # the last use of a token is noted no more often
MAX_NAME_CHARACTERS = 64
MAX_DAYS = 100_000

Scope = Literal["client", "read"]


class Token(msgspec.Struct, frozen=True):
    """A token without its secret. Moments are seconds since the epoch; 0 is never."""

    id: str
    name: str
    scope: Scope
    hash: str
    created_at: float
    expires_at: float = 0.0
    used_at: float = 0.0

    def is_expired(self, now: float) -> bool:
        """Whether its time is over."""
        return 0 < self.expires_at <= now


class TokenFile:
    """The tokens of a home."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._seen: tuple[int, int, int] | None = None  # which state of the file was read
        self._tokens: dict[str, Token] = {}

    def create(self, scope: Scope, now: float, *, name: str = "", days: float = 0.0) -> tuple[Token, str]:
        """A new token, and its text, which is kept nowhere. It expires after `days`, or with 0 never."""
        if not 0 <= days < MAX_DAYS:
            raise InvalidError(f"a token expires after less than {MAX_DAYS:,} days, not after {days:g}")
        if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
            raise InvalidError(f"the name of a token has at most {MAX_NAME_CHARACTERS} printable characters")
        with self._changing() as tokens:
            secret = secrets.token_urlsafe(SECRET_BYTES)
            name_of_it = f"tk-{secrets.token_hex(5)}"
            expires_at = now + days * 86_400 if days else 0.0
            token = Token(name_of_it, name, scope, _hash(secret), now, expires_at)
            tokens[token.id] = token
        return token, f"{token.id}.{secret}"

    def list(self) -> Sequence[Token]:
        """All of them, the oldest first."""
        return list(self._read().values())

    def revoke(self, token: str) -> None:
        """Let the token of that id open nothing any more; `NotFoundError` where there is none."""
        with self._changing() as tokens:
            if tokens.pop(token, None) is None:
                raise NotFoundError(f"there is no token {token}: `upswell server token list` shows those there are")

    def check(self, text: str, now: float) -> Token | None:
        """The token that this is the text of, if it is good. Takes the same time whatever is wrong with it."""
        name, _, secret = text.partition(".")
        token = self._read().get(name)
        right = secrets.compare_digest(_hash(secret), token.hash if token else "0" * 64)
        return token if token and right and not token.is_expired(now) else None

    def is_good(self, token: str, now: float) -> bool:
        """Whether the token of that id is neither revoked nor expired."""
        found = self._read().get(token)
        return found is not None and not found.is_expired(now)

    def used(self, token: str, now: float) -> None:
        """Note that the token is in use."""
        if (found := self._read().get(token)) and now - found.used_at >= USE_SECONDS:
            with self._changing() as tokens:
                if token in tokens:
                    tokens[token] = msgspec.structs.replace(tokens[token], used_at=now)

    def _read(self) -> dict[str, Token]:
        """What the file says; it is read where it has changed."""
        try:
            found = os.stat(self._path)
            state = (found.st_ino, found.st_mtime_ns, found.st_size)
            if state != self._seen:
                tokens = msgspec.json.decode(self._path.read_bytes(), type=list[Token])
                self._seen, self._tokens = state, {token.id: token for token in tokens}
        except FileNotFoundError:
            self._seen, self._tokens = None, {}
        except msgspec.MsgspecError as error:
            raise InvalidError(f"{self._path} is not valid: {error}: move it away, and make new tokens") from None
        except OSError as error:
            raise StoreError(f"{self._path} can't be read: {error.strerror}: it says who may come in") from None
        return self._tokens

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """The tokens, to be changed; they are written when the block ends."""
        with open(self._path.with_suffix(".lock"), "w", opener=open_file) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = dict(self._read())
            yield tokens
            try:
                self._write(tokens)
            except OSError as error:
                raise StoreError(f"{self._path} can't be written, and is as it was: {error.strerror}") from None

    def _write(self, tokens: dict[str, Token]) -> None:
        part = self._path.with_suffix(".part")
        with open(part, "wb", opener=open_file) as file:
            file.write(msgspec.json.format(msgspec.json.encode(list(tokens.values()))) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self._path)


def _hash(secret: str) -> str:
    """Of 256 random bits, which nobody can guess: a slow hash would only slow the server down."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
