"""The aggregators that a configuration can name."""

from collections.abc import Callable
from functools import partial

from securekd.errors import SettingError
from securekd.federation.aggregation.homomorphic import HomomorphicAggregator
from securekd.federation.aggregation.masking import MaskingAggregator
from securekd.federation.aggregation.plain import PlainAggregator
from securekd.federation.aggregation.seam import Aggregator
from securekd.plugins import named
from securekd_protocols.homomorphic import SchemeName

AGGREGATORS: dict[str, Callable[[], Aggregator]] = {
    "masking": MaskingAggregator,
    "ckks": partial(HomomorphicAggregator, SchemeName.CKKS),
    "bfv": partial(HomomorphicAggregator, SchemeName.BFV),
    "plain": PlainAggregator,
}

PARTS = ("sums_only", "server", "client", "decryptor")


def aggregator_named(name: str) -> Aggregator:
    """The aggregator that a configuration names.

    Raises:
        SettingError: if there is none, or if it does not have every party's part.
    """
    found = named("aggregation", name, AGGREGATORS)
    lacking = [part for part in PARTS if not hasattr(found, part)]
    if lacking:
        old = ", but `aggregate` as in securekd 0.1" if hasattr(found, "aggregate") else ""
        raise SettingError(
            f"aggregation = {name!r} has no {', no '.join(f'`{part}`' for part in lacking)}{old}; CHANGELOG says how "
            "to write the parts of an aggregator"
        )
    return found
