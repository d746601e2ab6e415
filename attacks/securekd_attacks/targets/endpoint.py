"""A target behind HTTP: JSON in, JSON out.

Request: `POST` with `{"inputs": [...]}`: texts, rows as objects, or arrays as nested lists. Answer: status 200 and an
object with exactly one of

- `log_probs`, `probs` or `logits`: a list of C numbers for each input (`-Infinity` is legal in `log_probs`);
- `labels`: an integer for each input, and then only label-only attacks are possible;
- `token_log_probs`: a list of numbers for each input, of any length; beside it `token_means` and `token_deviations`.

Whatever else comes back is refused by name, and nothing of it is kept.
"""

import contextlib
import http.client
import json
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

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

_CLASSES = {"log_probs": reading.of_log_probs, "probs": reading.of_probabilities, "logits": reading.of_logits}
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
        token_variable: the environment variable that holds a bearer token; None for none. The token is stored nowhere.

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
        TargetUnusable: an address that cannot be asked, or a token's variable that is not set.
    """

    url: str
    manners: Manners = field(default_factory=Manners)
    sleep: Callable[[float], None] = time.sleep
    _last: float = field(default=-math.inf, init=False, repr=False)

    def __post_init__(self) -> None:
        _address(self.url)
        _headers(self.manners)

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
        body = json.dumps({"inputs": inputs.tolist() if isinstance(inputs, np.ndarray) else list(inputs)}).encode()
        for attempt in range(self.manners.retries + 1):
            self._keep_rate()
            status, content, asked_wait = self._once(body)
            if status == http.client.OK:
                return answers_in(content, len(inputs))
            if status is not None and status not in RETRIED:
                raise TargetFailed(f"{self.name} refuses", value=f"status {status}", remedy=_remedy(status))
            if attempt < self.manners.retries:
                self.sleep(min(LONGEST_WAIT, max(asked_wait, self.manners.backoff * 2.0**attempt)))
        what = f"status {status}" if status is not None else content.decode(errors="replace")
        raise TargetFailed(
            f"{self.name} failed {self.manners.retries + 1} times", value=what, remedy="resume when it is well again"
        )

    def _keep_rate(self) -> None:
        wait = self._last + 1.0 / self.manners.rate - time.monotonic()
        if wait > 0.0:
            self.sleep(wait)
        self._last = time.monotonic()

    def _once(self, body: bytes) -> tuple[int | None, bytes, float]:
        """One attempt: status (None where there was none), content or trouble, and the seconds asked to wait."""
        connection = _connect(_address(self.url), self.manners.timeout)
        path = urlsplit(self.url)
        watch = threading.Timer(self.manners.longest, _hang_up, (connection,))
        watch.daemon = True
        watch.start()
        try:
            where = (path.path or "/") + (f"?{path.query}" if path.query else "")
            connection.request("POST", where, body=body, headers=_headers(self.manners))
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                return answer.status, b"", _seconds(answer.getheader("Retry-After"))
            if answer.getheader("Content-Encoding", "identity") != "identity":
                raise BadAnswer(
                    "the endpoint compresses its answer", value=answer.getheader("Content-Encoding"), remedy="do not"
                )
            return answer.status, self._read(answer), 0.0
        except (OSError, http.client.HTTPException, ValueError) as error:  # refused, reset, late, cut off, or no HTTP
            return None, f"{type(error).__name__}: {error}".encode(errors="replace"), 0.0
        finally:
            watch.cancel()
            connection.close()

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        parts, size = [], 0
        while part := answer.read(READ_AT_ONCE):
            size += len(part)
            if size > self.manners.largest_answer:
                raise BadAnswer(
                    "the endpoint's answer is too large",
                    value=f"more than {self.manners.largest_answer} bytes",
                    remedy="ask for fewer records at once, or allow more",
                )
            parts.append(part)
        if answer.length:  # what is missing of the length that was promised
            raise http.client.IncompleteRead(b"", answer.length)
        return b"".join(parts)


def answers_in(content: bytes, records: int) -> Answers:
    """Read an answer's bytes.

    Raises:
        BadAnswer: they are not what the module says.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadAnswer("the answer is no JSON", value=f"{content[:40]!r}", remedy="answer as documented") from error
    kinds = [key for key in (*_CLASSES, "labels", "token_log_probs") if isinstance(found, dict) and key in found]
    if len(kinds) != 1:
        shown = sorted(map(str, found))[:8] if isinstance(found, dict) else type(found).__name__
        raise BadAnswer("the answer has not one kind of output", value=shown, remedy="give log_probs, say, and only it")
    kind = kinds[0]
    if kind == "token_log_probs":
        return _tokens(found, records)
    array = _numbers(found[kind], kind)
    if kind == "labels":
        return Answers(predicted=reading.labels_alone(array, records))
    return Answers(log_probs=_CLASSES[kind](array.astype(np.float64), records))


def _tokens(found: dict[str, Any], records: int) -> Answers:
    lists: dict[str, tuple[Any, ...]] = {}
    for kind in _TOKENS:
        if kind not in found:
            continue
        if not isinstance(found[kind], list) or len(found[kind]) != records:
            raise BadAnswer(f"{kind} is not a list for each text", value=records, remedy="answer as documented")
        lists[kind] = tuple(_numbers(each, kind).astype(np.float64) for each in found[kind])
    for own, *others in zip(*lists.values(), strict=True):
        if any(other.shape != own.shape for other in others):
            raise BadAnswer("tokens and their moments differ in number", value=own.shape, remedy="one for each token")
    return Answers(
        token_log_probs=tuple(reading.of_tokens(each) for each in lists["token_log_probs"]),
        token_means=lists.get("token_means"),
        token_deviations=lists.get("token_deviations"),
    )


def _numbers(value: Any, kind: str) -> "np.ndarray[Any, np.dtype[Any]]":
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise BadAnswer(f"{kind} is no regular list", value="ragged", remedy="give lists of one length") from error
    if array.dtype.kind not in "iuf":
        raise BadAnswer(f"{kind} are no numbers", value=array.dtype, remedy="answer as documented")
    return array


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
    if address.scheme == "https":
        return http.client.HTTPSConnection(host, address.port, timeout=timeout, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, address.port, timeout=timeout)


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """End a connection that another thread waits for; closing alone would leave it waiting."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _headers(manners: Manners) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    if manners.token_variable is not None:
        token = os.environ.get(manners.token_variable)
        if not token:
            raise TargetUnusable("no token", value=f"{manners.token_variable} is not set", remedy="export it")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isascii() and header.isdigit() else 0.0


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "give a bearer token that it accepts"
    if 300 <= status < 400:
        return "give the address that it redirects to"
    return "look into the endpoint"
