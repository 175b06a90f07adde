"""Frames: whatever is sent arrives, however the stream is cut; what is no frame is refused, with the reason."""

import itertools
import struct
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upswell.wire import codec
from upswell.wire import messages as m
from upswell.wire.codec import Decoder, ProtocolError, encode, encode_parts

from . import arbitrary

HELLO = m.Hello(m.PROTOCOL, "client", "token", 1)


def decoded(*pieces: bytes) -> list[tuple[m.Message, bytes]]:
    decoder = Decoder()
    return [(message, bytes(payload)) for piece in pieces for message, payload in decoder.feed(piece)]


def raw(body: bytes, payload: bytes = b"") -> bytes:
    return struct.pack("<II", 4 + len(body) + len(payload), len(body)) + body + payload


@pytest.mark.parametrize("kind", arbitrary.TYPES, ids=lambda kind: kind.__name__)
@settings(max_examples=20)
@given(random=st.randoms(use_true_random=False), payload=st.binary(max_size=100))
def test_every_message_arrives_as_it_was(kind: type[m.Message], random: Random, payload: bytes) -> None:
    sent = arbitrary.message(random, (kind,))
    assert decoded(encode(sent, payload)) == [(sent, payload)]


def test_every_message_has_a_tag_of_its_own() -> None:
    tags = [kind.__struct_config__.tag for kind in arbitrary.TYPES]
    assert len(set(tags)) == len(tags)


def test_annotations_are_values() -> None:
    texts = [kind.__name__ for kind in arbitrary.TYPES if str in map(type, kind.__annotations__.values())]
    assert not texts, "each start would compile them: no `from __future__ import annotations` where messages are"


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 400), max_size=8))
def test_however_the_stream_is_cut(random: Random, cuts: list[int]) -> None:
    sent = [(arbitrary.message(random), random.randbytes(random.choice((0, 5, 50)))) for _ in range(4)]
    stream = b"".join(encode(message, payload) for message, payload in sent)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    assert decoded(*(stream[a:b] for a, b in itertools.pairwise(edges))) == sent


def test_at_every_byte() -> None:
    sent = [(HELLO, b"payload"), (m.Bye("reason"), b""), (m.Ready(), b"\0")]
    stream = b"".join(encode(message, payload) for message, payload in sent)
    for cut in range(len(stream)):
        assert decoded(stream[:cut], stream[cut:]) == sent
    assert decoded(*(stream[i : i + 1] for i in range(len(stream)))) == sent


def test_payloads_stay_valid() -> None:
    decoder = Decoder()
    first = decoder.feed(encode(HELLO, b"first" * 10))[0][1]
    for _ in range(3):
        decoder.feed(encode(HELLO, b"other" * 10))
    assert bytes(first) == b"first" * 10


def test_a_large_payload_is_not_copied() -> None:
    payload = bytes(codec.LARGE_PAYLOAD_BYTES)
    assert any(part is payload for part in encode_parts(HELLO, payload))
    assert b"".join(encode_parts(HELLO, payload)) == encode(HELLO, payload)
    assert len(encode_parts(HELLO, payload[1:])) == 1


def test_what_is_unfinished_is_known() -> None:
    decoder = Decoder()
    assert decoder.unfinished == 0
    decoder.feed(encode(HELLO)[:7])
    assert decoder.unfinished == 7
    decoder.feed(encode(HELLO)[7:])
    assert decoder.unfinished == 0


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (struct.pack("<I", 3), "frame of 3 bytes"),
        (struct.pack("<I", 0xFFFFFFFF), "frame of 4,294,967,295 bytes"),
        (b"GET / HTTP/1.1\r\n", "a frame of"),
        (struct.pack("<II", 8, 5) + b"abcd", "a message of 5 bytes in a frame of 8"),
        (struct.pack("<II", 8, 0xFFFFFFFF) + b"abcd", "a message of 4,294,967,295 bytes"),
        (raw(b""), "not a message"),
        (raw(b"\xc1"), "not a message"),
        (raw(msgspec.msgpack.encode([99, "x"])), "not a message"),
        (raw(msgspec.msgpack.encode({"type": 1})), "not a message"),
        (raw(msgspec.msgpack.encode([1, "one", "client", "", 1])), "not a message"),
        (raw(msgspec.msgpack.encode([1, 1, "server", "", 1])), "not a message"),
        (raw(msgspec.msgpack.encode([1, 1])), "not a message"),
        (raw(msgspec.msgpack.encode([3, "a"]) + b"more"), "not a message"),
        (raw(b"\x92\x03\xa2\xff\xfe"), "not a message"),
        (raw(b"\x92\x03" + b"\x91" * 100_000), "not a message"),
        (raw(b"\x94\x0a\xa1a\xa1b\xdd\xff\xff\xff\xff"), "not a message"),
        (raw(msgspec.msgpack.encode([17, 1, "f", {"min_containers": -5}])), "min_containers must be at least 0"),
    ],
)
def test_what_is_no_frame_is_refused(stream: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        Decoder().feed(stream)


def test_limits_hold_for_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProtocolError, match=r"Bye has .* bytes, and the limit is"):
        encode(m.Bye("x" * codec.MAX_MESSAGE_BYTES))
    monkeypatch.setattr(codec, "MAX_PAYLOAD_BYTES", 10)
    encode(HELLO, b"x" * 10)
    with pytest.raises(ProtocolError, match="Hello's payload has 11 bytes, and the limit is 10"):
        encode(HELLO, b"x" * 11)
    with pytest.raises(ProtocolError, match="in a frame of"):
        Decoder().feed(raw(msgspec.msgpack.encode(HELLO), b"x" * 11))


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(stream: bytes) -> None:
    try:
        frames = Decoder().feed(stream)
    except ProtocolError:
        return
    assert all(isinstance(message, m.Message) for message, _ in frames)
