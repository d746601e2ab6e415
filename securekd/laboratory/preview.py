"""What `securekd run --dry-run` shows: the split, the guarantee and the bytes of a plan."""

import time
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from securekd.data import holdings
from securekd.laboratory.plan import Plan
from securekd.models.registry import build
from securekd.records.record import GuaranteeRecord
from securekd.records.wording import server_sees


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClientPreview(_Part):
    """One client: what it holds and what it trains."""

    name: str
    model: str
    examples: int
    by_class: tuple[int, ...]


class ReleasePreview(_Part):
    """One release of each client in a round: its noise, and what the noise hides."""

    mechanism: str
    noise: float
    sensitivity: float
    step: float
    values: int


class Preview(_Part):
    """A plan in figures."""

    classes: tuple[str, ...]
    clients: tuple[ClientPreview, ...]
    transfer: int
    transfer_labels: bool
    test: int
    server_sees: str
    dp_sgd_noise_multiplier: float | None
    releases: tuple[ReleasePreview, ...]
    guarantees: tuple[GuaranteeRecord, ...]
    upload_bytes_per_client: float
    download_bytes_per_client: float
    fedavg_bytes_per_client: float
    aggregation_s: float
    notes: tuple[str, ...]


def preview(plan: Plan) -> Preview:
    """The figures of a plan; bytes are those of an aggregation of zeros, so they are the run's own."""
    begin = time.monotonic()
    rehearsed, rounds = plan.rehearse(), plan.experiment.rounds
    aggregation_s = rounds * (time.monotonic() - begin)
    clients = len(plan.clients)
    lessons = (rounds - 1) * 4 * plan.question.knowledge.size
    built = [build(c.model, plan.agreement.shape, 0) for c in plan.clients]
    weights = [sum(v.numel() for v in network.state_dict().values()) for network in built]
    return Preview(
        classes=plan.data.classes,
        clients=tuple(
            ClientPreview(name=c.name, model=c.model.kind, examples=len(c.examples), by_class=tuple(by_class))
            for c, by_class in zip(plan.clients, holdings(plan.data).counts.tolist(), strict=True)
        ),
        transfer=len(plan.data.transfer),
        transfer_labels=plan.data.transfer.labels is not None,
        test=len(plan.data.test),
        server_sees=server_sees(plan.agreement, plan.aggregator),
        dp_sgd_noise_multiplier=None if plan.agreement.dp is None else plan.agreement.dp.noise_multiplier,
        releases=tuple(
            ReleasePreview(
                mechanism=plan.experiment.release.mechanism,
                noise=m.sigma,
                sensitivity=m.bounds.l2,
                step=m.step,
                values=m.bounds.dimension,
            )
            for m in (q.release.mechanism for q in plan.questions)
        ),
        guarantees=tuple(GuaranteeRecord(**vars(g)) for g in plan.guarantees()),
        upload_bytes_per_client=rounds * sum(_total(r.upload) for r in rehearsed) / clients,
        download_bytes_per_client=rounds * sum(_total(r.download) for r in rehearsed) / clients + lessons,
        fedavg_bytes_per_client=4 * rounds * float(np.mean(weights)),
        aggregation_s=aggregation_s,
        notes=plan.data.notes,
    )


def _total(by_phase: Mapping[str, Mapping[str, int]]) -> int:
    return sum(sum(by.values()) for by in by_phase.values())
