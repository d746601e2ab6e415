"""What was sent in a federation: bytes by client and by phase."""

from collections.abc import Mapping, Sequence

import numpy as np

from securekd.federation.strategies.seam import Played
from securekd.records.record import Communication, MeanMax


def communication(played: Sequence[Played], weights: Mapping[str, int]) -> Communication:
    """Add up what was sent.

    Args:
        played: all rounds.
        weights: numbers in each client's model, by name: what federated averaging would send instead.
    """
    up, down = dict.fromkeys(weights, 0), dict.fromkeys(weights, 0)
    by_phase: dict[str, dict[str, int]] = {}

    def add(phase: str, way: str, client: str, count: int) -> None:
        (up if way == "upload" else down)[client] += count
        by_phase.setdefault(phase, {"upload": 0, "download": 0})[way] += count

    for one in played:
        for _, summed in one.sums:
            for way, phases_of in (("upload", summed.upload), ("download", summed.download)):
                for phase, by_client in phases_of.items():
                    for client, count in by_client.items():
                        add(phase, way, client, count)
            for way, count in summed.decryptor.items():
                by_phase.setdefault("decryptor", {"upload": 0, "download": 0})[way] += count
        if one is not played[-1]:  # what the clients learn before they train again, as float32
            for client in weights:
                add(one.ended.taught.name, "download", client, 4 * one.ended.taught.size)
    return Communication(
        upload_bytes_per_client=mean_max(list(up.values())),
        download_bytes_per_client=mean_max(list(down.values())),
        by_phase=by_phase,
        rounds=len(played),
        fedavg_bytes_per_client=mean_max([4 * size * len(played) for size in weights.values()]),
    )


def mean_max(values: Sequence[int]) -> MeanMax:
    """Mean and largest."""
    return MeanMax(mean=float(np.mean(values)), max=max(values))
