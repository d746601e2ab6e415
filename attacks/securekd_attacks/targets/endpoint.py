"""A target behind HTTP: JSON in, JSON out.

Request: `POST` with `{"inputs": [...]}`: texts, rows as objects, or arrays as nested lists, where null is a missing
value. Answer: status 200 (or another 2xx that has content) and an object with exactly one of

- `log_probs`, `probs` or `logits`: a list of C numbers for each input (`-Infinity` is legal in `log_probs`);
- `labels`: an integer for each input, and then only label-only attacks are possible;
- `token_log_probs`: a list of numbers for each input, of any length; beside it `token_means` and `token_deviations`.

Whatever else comes back is refused by name, and nothing of it is kept. What an answer would take in memory is bounded
before any of it is built.
"""

import contextlib
import http.client
import ipaddress
import json
import math
import os
import reprlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import numpy as np

from securekd_attacks.errors import BadSetting
from securekd_attacks.targets import reading
from securekd_attacks.targets.errors import BadAnswer, TargetFailed, TargetUnusable
from securekd_attacks.targets.records import Answers, Inputs

RETRIED = frozenset({429, 500, 502, 503, 504})
"""Statuses that may pass: too many requests, and a server's own troubles."""

LONGEST_WAIT = 60.0
"""Seconds between two attempts at most, whatever the server asks for."""

READ_AT_ONCE = 1 << 16

BYTES_A_VALUE = 16
"""Bytes of `largest_answer` for each value that an answer may hold; a float is written in up to about 20."""

MARKS_A_RECORD, MARKS_BESIDE = 8, 4096
"""Lists, objects and quotes that an answer may hold: for each record, and beside the records."""

COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})

LONGEST_SHOWN = 80
"""Characters of a foreign address that an error shows."""

WITHOUT_CONTENT = frozenset({204, 205, 206})
"""Statuses of success that bring no answer, or a part of one."""

_TOKENS = ("token_log_probs", "token_means", "token_deviations")


@dataclass(frozen=True)
class Manners:
    """How an endpoint is asked.

    Attributes:
        timeout: seconds until a connection, or a pause in an answer, counts as failed; above 0.
        longest: seconds that a whole answer may take, so that one that drips does not hold the audit up; above 0.
        retries: further attempts after a failure that may pass, at least 0.
        backoff: seconds before the first of them, doubled each time; a `Retry-After` in seconds counts where longer.
        rate: requests a second at most, above 0; infinity for no limit.
        largest_answer: bytes of an answer at most.
        token_variable: the environment variable that holds a bearer token; None for none. The token is stored nowhere,
            and is sent over https, or to this machine, alone.

    Raises:
        BadSetting: something is out of range.
    """

    timeout: float = 30.0
    longest: float = 600.0
    retries: int = 5
    backoff: float = 0.5
    rate: float = math.inf
    largest_answer: int = 64 << 20
    token_variable: str | None = None

    def __post_init__(self) -> None:
        if not (min(self.timeout, self.longest, self.rate) > 0.0 and self.retries >= 0 and self.backoff >= 0.0):
            raise BadSetting(
                "timeout, longest, retries, backoff or rate out of range",
                value=(self.timeout, self.longest, self.retries, self.backoff, self.rate),
                remedy="choose a timeout and a rate above 0, and retries from 0",
            )


@dataclass
class EndpointTarget:
    """An endpoint as a target; `url` and `manners` do not change, and what does is when it was last asked.

    Attributes:
        url: http or https, without a user and a password.
        manners: see `Manners`.
        sleep: waits some seconds; for tests.

    Raises:
        TargetUnusable: an address that cannot be asked, a token's variable that is not set, or a token that would
            travel unencrypted.
    """

    url: str
    manners: Manners = field(default_factory=Manners)
    sleep: Callable[[float], None] = time.sleep
    _last: float = field(default=-math.inf, init=False, repr=False)

    def __post_init__(self) -> None:
        address = _address(self.url)
        _headers(self.manners)
        if self.manners.token_variable is not None and address.scheme != "https" and not _is_here(address):
            raise TargetUnusable(
                "a token that everybody on the way could read", value=self.name, remedy="give an https:// address"
            )

    @property
    def name(self) -> str:
        """The address without its query, which may hold a key."""
        return self.url.partition("?")[0].partition("#")[0]

    def ask(self, inputs: Inputs) -> Answers:
        """Send a batch, and again where a failure may pass.

        Raises:
            TargetFailed: it does not answer, or refuses.
            BadAnswer: it answers something else than the module says.
        """
        body = json.dumps({"inputs": _plain(inputs)}, allow_nan=False).encode()
        for attempt in range(self.manners.retries + 1):
            self._keep_rate()
            reply = self._once(body)
            if reply.status is not None and 200 <= reply.status < 300:
                return answers_in(reply.content, len(inputs), self.manners.largest_answer)
            if reply.status is not None and reply.status not in RETRIED:
                raise TargetFailed(f"{self.name} refuses", value=reply.said, remedy=_remedy(reply.status))
            if attempt < self.manners.retries:
                self.sleep(min(LONGEST_WAIT, max(reply.wait, self.manners.backoff * 2.0**attempt)))
        raise TargetFailed(
            f"{self.name} failed {self.manners.retries + 1} times",
            value=reply.said,
            remedy="resume when it is well again",
        )

    def _keep_rate(self) -> None:
        wait = self._last + 1.0 / self.manners.rate - time.monotonic()
        if wait > 0.0:
            self.sleep(wait)
        self._last = time.monotonic()

    def _once(self, body: bytes) -> "_Reply":
        """One attempt. Redirections are told, and not followed: neither records nor token go where nobody sent them."""
        connection = _connect(_address(self.url), self.manners.timeout)
        path = urlsplit(self.url)
        watch = threading.Timer(self.manners.longest, _hang_up, (connection,))
        watch.daemon = True
        watch.start()
        try:
            where = (path.path or "/") + (f"?{path.query}" if path.query else "")
            connection.request("POST", where, body=body, headers=_headers(self.manners))
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                to = f" to {_shown(self.url, place)}" if (place := answer.getheader("Location")) else ""
                wait = _seconds(answer.getheader("Retry-After"))
                return _Reply(answer.status, said=f"status {answer.status}{to}", wait=wait)
            if answer.status in WITHOUT_CONTENT:
                raise BadAnswer("the endpoint gives no whole answer", value=f"status {answer.status}", remedy="use 200")
            _refuse_encoded(answer)
            return _Reply(answer.status, self._read(answer))
        except (OSError, http.client.HTTPException, ValueError) as error:  # refused, reset, late, cut off, or no HTTP
            return _Reply(None, said=f"{type(error).__name__}: {ascii(str(error))[1:-1]}")
        finally:
            watch.cancel()
            connection.close()

    def _read(self, answer: http.client.HTTPResponse) -> bytearray:
        content = bytearray()
        while part := answer.read(READ_AT_ONCE):
            content += part
            if len(content) > self.manners.largest_answer:
                raise _too_large(f"more than {self.manners.largest_answer} bytes")
        if answer.length:  # what is missing of the length that was promised
            raise http.client.IncompleteRead(b"", answer.length)
        return content


class _Final(http.client.HTTPResponse):
    """A response after any number of interim ones, such as 103 Early Hints; the library passes over 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
        return version, (100 if 101 < status < 200 else status), reason


def _refuse_encoded(answer: http.client.HTTPResponse) -> None:
    named = {each.strip().lower() for each in answer.getheader("Content-Encoding", "").split(",")}
    if named - {"", "identity"}:
        shown = ascii(answer.getheader("Content-Encoding"))[:LONGEST_SHOWN]
        if named & COMPRESSIONS:
            raise BadAnswer("the endpoint compresses its answer", value=shown, remedy="answer without compression")
        raise BadAnswer(
            "the endpoint's Content-Encoding is no compression",
            value=shown,
            remedy="leave that header out; a character set stands in Content-Type",
        )
    transfer = answer.getheader("Transfer-Encoding", "").strip().lower()
    if transfer not in ("", "identity", "chunked"):
        raise BadAnswer(
            "the endpoint encodes the transfer of its answer",
            value=ascii(transfer)[:LONGEST_SHOWN],
            remedy="transfer it chunked, or with a Content-Length, and without compression",
        )


@dataclass(frozen=True)
class _Reply:
    """What one attempt brought: a status (None where there was none), content or trouble, seconds asked to wait."""

    status: int | None
    content: bytes | bytearray = b""
    said: str = ""
    wait: float = 0.0


def answers_in(content: bytes | bytearray, records: int, largest: int = Manners.largest_answer) -> Answers:
    """Read an answer's bytes, within a small multiple of `largest` in memory.

    Raises:
        BadAnswer: they are not what the module says.
    """
    _refuse_bulk(content, records, largest)
    try:
        found = json.loads(content, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        said = f"{bytes(content[:40])!r}"
        raise BadAnswer("the answer is no JSON", value=said, remedy="answer as documented") from error
    kinds = [
        key for key in (*reading.OUTPUT_KINDS, "labels", "token_log_probs") if isinstance(found, dict) and key in found
    ]
    if len(kinds) != 1:
        shown = sorted(map(str, found))[:8] if isinstance(found, dict) else type(found).__name__
        raise BadAnswer("the answer has not one kind of output", value=shown, remedy="give log_probs, say, and only it")
    kind = kinds[0]
    if kind == "token_log_probs":
        return _tokens(found, records)
    array = _numbers(found[kind], kind)
    if kind == "labels":
        return Answers(predicted=reading.labels_alone(array, records))
    read = reading.distributions(kind, array.astype(np.float64), records)
    return Answers(log_probs=read.log_probs, rounding=read.rounding)


def _refuse_bulk(content: bytes | bytearray, records: int, largest: int) -> None:
    """Refuse bytes that would become far more than they are: each value costs an object, each letter up to 4 bytes."""
    values, most_values = content.count(b",") + 1, largest // BYTES_A_VALUE
    marks, most_marks = sum(map(content.count, (b"[", b"{", b'"'))), MARKS_A_RECORD * records + MARKS_BESIDE
    if not content.isascii() and 4 * len(content) > largest:
        raise _too_large(f"{len(content)} bytes that are not ASCII")
    if values > most_values:
        raise _too_large(f"{values} values in {len(content)} bytes")
    if marks > most_marks:
        raise BadAnswer(
            f"the answer for {records} records has too much beside its numbers",
            value=f"{marks} brackets and quotes, more than {most_marks}",
            remedy="answer with a list for each record, and little else",
        )


def _too_large(what: str) -> BadAnswer:
    return BadAnswer(
        "the endpoint's answer is too large",
        value=what,
        remedy="ask for fewer records at once, which is to begin anew with a smaller batch",
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BadAnswer("the answer has a key twice", value=ascii(twice[:40]), remedy="give it once")
    return found


def _tokens(found: dict[str, Any], records: int) -> Answers:
    lists: dict[str, tuple[Any, ...]] = {}
    for kind in _TOKENS:
        if kind not in found:
            continue
        if not isinstance(found[kind], list) or len(found[kind]) != records:
            raise BadAnswer(f"{kind} is not a list for each text", value=records, remedy="answer as documented")
        texts = (_numbers([each], kind, row)[0] for row, each in enumerate(found[kind]))
        lists[kind] = tuple(each.astype(np.float64) for each in texts)
    for row, (own, *others) in enumerate(zip(*lists.values(), strict=True)):
        if any(other.shape != own.shape for other in others):
            raise BadAnswer(
                "tokens and their moments differ in number", value=own.shape, remedy="one for each token", row=row
            )
    return Answers(
        token_log_probs=tuple(reading.of_tokens(each, row) for row, each in enumerate(lists["token_log_probs"])),
        token_means=lists.get("token_means"),
        token_deviations=lists.get("token_deviations"),
    )


def _numbers(value: Any, kind: str, first: int = 0) -> "np.ndarray[Any, np.dtype[Any]]":
    """A list as numbers; its first item is the batch's record `first`."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        lengths = [len(each) if isinstance(each, list) else 0 for each in value]
        row = next((row for row, length in enumerate(lengths) if length != lengths[0]), None)
        raise BadAnswer(
            f"{kind} is no regular list" + ("" if row is None else ", first"),
            value="ragged" if row is None else f"{lengths[row]} values after {lengths[0]}",
            remedy="give lists of one length",
            row=None if row is None else first + row,
        ) from error
    if array.dtype.kind not in "iuf":
        row, odd = next(_no_numbers(value), (None, array.dtype))
        raise BadAnswer(
            f"{kind} are no numbers" + ("" if row is None else ", first"),
            value=reprlib.repr(odd),
            remedy="give a finite number in every place",
            row=None if row is None else first + row,
        )
    return array


def _no_numbers(value: Any) -> Iterator[tuple[int, Any]]:
    """Rows in which something is no number, and what."""
    for row, each in enumerate(value if isinstance(value, list) else []):
        for one in each if isinstance(each, list) else [each]:
            if not isinstance(one, int | float) or isinstance(one, bool) or (isinstance(one, int) and abs(one) >> 63):
                yield row, one


def _address(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        port = address.port
    except ValueError as error:
        raise TargetUnusable("no address", value=url.partition("?")[0], remedy="write http(s)://host/path") from error
    spelt = url.isascii() and url.isprintable() and " " not in url
    if address.scheme not in ("http", "https") or not address.hostname or port == 0 or not spelt:
        raise TargetUnusable("no address", value=url.partition("?")[0], remedy="write http(s)://host/path")
    if address.username is not None or address.password is not None:
        raise TargetUnusable(
            "a password in an address would be written down", value=address.hostname, remedy="use a bearer token"
        )
    return address


def _connect(address: SplitResult, timeout: float) -> http.client.HTTPConnection:
    host = str(address.hostname)
    connection = (
        http.client.HTTPSConnection(host, address.port, timeout=timeout, context=ssl.create_default_context())
        if address.scheme == "https"
        else http.client.HTTPConnection(host, address.port, timeout=timeout)
    )
    connection.response_class = _Final
    return connection


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """End a connection that another thread waits for; closing alone would leave it waiting."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _is_here(address: SplitResult) -> bool:
    """Whether an address is this machine's own, so that nobody listens on the way."""
    if address.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(str(address.hostname)).is_loopback
    except ValueError:  # a name, or a way to write an address that is no standard
        return False


def _shown(url: str, place: str) -> str:
    """Where an answer points to, without query, fragment, user and password, which may hold secrets."""
    try:
        parts = urlsplit(urljoin(url, place))
    except ValueError:
        return "an address that cannot be read"
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return ascii(bare)[1:-1][:LONGEST_SHOWN]


def _headers(manners: Manners) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    if manners.token_variable is not None:
        token = os.environ.get(manners.token_variable)
        if not token:
            raise TargetUnusable("no token", value=f"{manners.token_variable} is not set", remedy="export it")
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise TargetUnusable(
                "no token", value=f"{manners.token_variable} has a space or a line end", remedy="export the token alone"
            )
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _plain(inputs: Inputs) -> list[Any]:
    """Inputs as JSON has them: of arrays nested lists, null for NaN."""
    if not isinstance(inputs, np.ndarray):
        return list(inputs)
    values = inputs.astype(object)
    values[inputs != inputs] = None
    return list(values.tolist())


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isascii() and header.isdigit() else 0.0


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "give a bearer token that it accepts"
    if 300 <= status < 400:
        return "redirections are not followed: give the address that it redirects to"
    return "look into the endpoint"
