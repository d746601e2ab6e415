"""The binary alphabet of all messages: little-endian integers, fixed fields, length-prefixed blobs.

There is one encoding of each value, and the reader accepts no other. It checks every count against a cap and against
the bytes that are really there before it builds anything, and raises `MalformedMessage` otherwise; `Reader.finish`
refuses what is left over. Nothing here knows what the messages mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from struct import Struct, pack, unpack
from typing import Any

from securekd_protocols.errors import MalformedMessage

Bytes = bytes | bytearray | memoryview

_RESEND = "drop the message and have it sent again"


class Writer:
    """Collects the parts of one encoding; `finish` joins them.

    Sizes and ranges are the caller's duty: an integer that does not fit raises `OverflowError`.
    """

    def __init__(self) -> None:
        self._parts: list[Bytes] = []

    def integer(self, value: int, size: int) -> Writer:
        """Append an unsigned little-endian integer of `size` bytes."""
        self._parts.append(value.to_bytes(size, "little"))
        return self

    def fixed(self, data: Bytes) -> Writer:
        """Append bytes whose length both sides know."""
        self._parts.append(data)
        return self

    def blob(self, data: Bytes) -> Writer:
        """Append bytes behind their length (4 bytes)."""
        return self.integer(len(data), 4).fixed(data)

    def blobs(self, items: Sequence[Bytes]) -> Writer:
        """Append a count (2 bytes) and that many blobs."""
        parts: list[Bytes] = []
        for item in items:
            parts.append(len(item).to_bytes(4, "little"))
            parts.append(item)
        return self.integer(len(items), 2).fixed(b"".join(parts))

    def rows(self, layout: Struct, rows: Sequence[tuple[int | bytes, ...]]) -> Writer:
        """Append a count (2 bytes) and that many rows of fixed fields, little-endian."""
        return self.integer(len(rows), 2).fixed(b"".join(layout.pack(*row) for row in rows))

    def indices(self, items: Iterable[int]) -> Writer:
        """Append a set of 2-byte indices: its count and its members in ascending order."""
        ordered = sorted(set(items))
        return self.integer(len(ordered), 2).fixed(pack(f"<{len(ordered)}H", *ordered))

    def finish(self) -> bytes:
        """Return everything that was appended."""
        return b"".join(self._parts)


class Reader:
    """Reads one encoding from front to back, copying nothing until it is known to be there.

    Args:
        data: The whole encoding.
        name: What is being read, for the error text.
    """

    def __init__(self, data: Bytes, name: str) -> None:
        self._rest = memoryview(data)
        self._name = name

    def malformed(self, why: str) -> MalformedMessage:
        """Build the error for whatever is being read; the caller raises it."""
        return MalformedMessage(f"{self._name}: {why}", _RESEND)

    def view(self, size: int) -> memoryview:
        """Take `size` bytes without a copy."""
        if size > len(self._rest):
            raise self.malformed(f"truncated, {size} bytes wanted and {len(self._rest)} left")
        head, self._rest = self._rest[:size], self._rest[size:]
        return head

    def fixed(self, size: int) -> bytes:
        """Take `size` bytes as `bytes`."""
        return bytes(self.view(size))

    def integer(self, size: int) -> int:
        """Take an unsigned little-endian integer of `size` bytes."""
        return int.from_bytes(self.view(size), "little")

    def count(self, cap: int, item_size: int) -> int:
        """Take a 2-byte count of items of at least `item_size` bytes each, none of them read yet."""
        count = self.integer(2)
        if count > cap:
            raise self.malformed(f"{count} items where at most {cap} can be")
        if count * item_size > len(self._rest):
            raise self.malformed(f"truncated, {count} items announced and {len(self._rest)} bytes left")
        return count

    def blob(self, cap: int) -> bytes:
        """Take a blob of at most `cap` bytes."""
        size = self.integer(4)
        if size > cap:
            raise self.malformed(f"a field of {size} bytes where at most {cap} can be")
        return self.fixed(size)

    def blobs(self, cap: int, blob_cap: int) -> tuple[bytes, ...]:
        """Take at most `cap` blobs of at most `blob_cap` bytes each."""
        return tuple(self.blob(blob_cap) for _ in range(self.count(cap, 4)))

    def rows(self, cap: int, layout: Struct) -> list[tuple[Any, ...]]:
        """Take at most `cap` rows of fixed fields."""
        count = self.count(cap, layout.size)
        return list(layout.iter_unpack(self.view(count * layout.size)))

    def indices(self, below: int) -> tuple[int, ...]:
        """Take a set of indices, all smaller than `below`, in strictly ascending order."""
        count = self.count(below, 2)
        items = unpack(f"<{count}H", self.view(2 * count))
        self.ascending(items, below)
        return items

    def ascending(self, items: Sequence[int], below: int) -> None:
        """Refuse indices that are repeated, out of order, or not smaller than `below`."""
        if any(a >= b for a, b in pairwise(items)) or any(item >= below for item in items):
            raise self.malformed(f"indices {list(items[:8])} are not ascending and below {below}")

    def finish(self) -> None:
        """Refuse bytes that nobody has read."""
        if len(self._rest):
            raise self.malformed(f"{len(self._rest)} bytes too many")
