"""One session of Flower's SecAgg+, as its package installs it: its own workflow, its own client mod, no network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from secure_aggregation_cost import CaseLike, Cost


class FlowerMissingError(Exception):
    """`flwr` is not installed."""


def flower_version() -> str:
    """Which Flower is measured.

    Raises:
        FlowerMissingError: None is there.
    """
    try:
        import flwr
    except ImportError as error:
        raise FlowerMissingError("Flower is left out: pip install flwr, in an environment of its own") from error
    return str(flwr.__version__)


class _Clients:
    """Stands where Flower's network is: runs each client's mod at once, and takes its time."""

    def __init__(self, case: CaseLike, silent: set[int]) -> None:
        from flwr.app import Context, RecordDict

        self.client_s = self.aside_s = 0.0
        self.up = self.down = 0
        self._silent, self._stage = silent, 0
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in range(1, case.clients + 1)
        }
        self._vector = np.random.default_rng(0).uniform(-1, 1, case.length).astype(np.float32)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Any]:
        from flwr.client.mod.secure_aggregation import secaggplus_mod

        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            if self._stage >= 2 and node in self._silent:
                continue
            begun = time.process_time()
            message = _own_copy(message)
            self.aside_s += time.process_time() - begun
            begun = time.process_time()
            reply = secaggplus_mod(message, self._contexts[node], self._train)
            spent = time.process_time() - begun
            if node in self._silent:
                self.aside_s += spent
            else:
                self.client_s += spent
                self.up += _size(reply.content)
                self.down += _size(message.content)
            replies.append(reply)
        self._stage += 1
        return replies

    def _train(self, message: Any, context: Any) -> Any:
        from flwr.app import Message
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
        from flwr.compat.common import recorddict_compat as compat

        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self._vector]), 1, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def _name_this_process() -> None:
    """Newer versions want to know which task a message comes from."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        return
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def _own_copy(message: Any) -> Any:
    """What arrives at a client is its own; the mod changes what it is given."""
    from flwr.app import ConfigRecord, Message, RecordDict

    content = RecordDict(dict(message.content))
    for name, record in message.content.config_records.items():
        content.config_records[name] = ConfigRecord(dict(record))
    return Message(metadata=message.metadata, content=content)


def _size(content: Any) -> int:
    """Bytes of the values in a message; frames and field names are not counted, in Flower's favour."""
    total = 0
    for record in content.config_records.values():
        for value in record.values():
            items = value if isinstance(value, list) else [value]
            total += sum(len(item) if isinstance(item, bytes | str) else 8 for item in items)
    for record in content.array_records.values():
        total += sum(len(array.data) for array in record.values())
    return total


class _Strategy:
    """Hands the workflow every client, and takes what it hands back."""

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self.results: list[Any] = []

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list[tuple[Any, Any]]:
        from flwr.common import FitIns

        class Proxy:
            def __init__(self, node: int) -> None:
                self.node_id = node
                self.cid = str(node)

        return [(Proxy(node), FitIns(parameters, {})) for node in range(1, self._clients + 1)]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> tuple[None, dict[str, Any]]:
        self.results = list(results)
        return None, {}


@lru_cache
def _warm_up() -> None:
    """What is imported at first use is not measured."""
    _session(SmallCase())


@dataclass(frozen=True)
class SmallCase:
    """The smallest session that does everything once."""

    clients: int = 4
    degree: int = 3
    threshold: int = 3
    length: int = 10
    dropouts: int = 1


def flower_session(case: CaseLike) -> Cost:
    """One session, as `_session` runs it, in an interpreter that is warm."""
    _warm_up()
    return _session(case)


def _session(case: CaseLike) -> Cost:
    """Sum clipped floats; those that fall silent do so before they send their input.

    Raises:
        RuntimeError: Flower gave no sum, or a wrong one.
    """
    import logging

    from flwr.app import ConfigRecord, Context, RecordDict
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.compat.common import recorddict_compat as compat
    from flwr.server import LegacyContext, ServerConfig, SimpleClientManager
    from flwr.server.workflow import SecAggPlusWorkflow

    logging.getLogger("flwr").setLevel(logging.ERROR)
    _name_this_process()
    silent = set(range(1, case.clients + 1, max(1, case.clients // case.dropouts))) if case.dropouts else set()
    silent = set(sorted(silent)[: case.dropouts])
    clients, strategy = _Clients(case, silent), _Strategy(case.clients)
    base = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    # Typed for Flower's Strategy class; ours has the methods that its workflow calls, and no more.
    context = LegacyContext(base, ServerConfig(num_rounds=1), strategy, SimpleClientManager())  # type: ignore[arg-type]
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    empty = ndarrays_to_parameters([np.zeros(1, np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(empty, keep_input=True)
    shares = case.clients if case.degree >= case.clients - 1 else case.degree + 1
    workflow = SecAggPlusWorkflow(shares, case.threshold, max_weight=1.0, clipping_range=1.0)
    begun = time.process_time()
    # Typed for Flower's Grid class; `_Clients` has the one method of it that the workflow calls.
    workflow(clients, context)  # type: ignore[arg-type]
    server_s = time.process_time() - begun - clients.client_s - clients.aside_s
    if not strategy.results:
        raise RuntimeError("Flower's session was halted")
    mean = parameters_to_ndarrays(strategy.results[0][1].parameters)[0]
    if np.abs(mean - clients._vector).max() > 1e-3:
        raise RuntimeError("Flower's mean is wrong")
    left = case.clients - len(silent)
    return Cost(clients.client_s / left, server_s, clients.up // left, clients.down // left)
