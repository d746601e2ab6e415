"""What a record says in words of a federation."""

from securekd.federation.aggregation.homomorphic import HomomorphicAggregator
from securekd.federation.aggregation.seam import Aggregator
from securekd.federation.agreement import Agreement


def server_sees(agreement: Agreement, aggregator: Aggregator) -> str:
    """What the server learns, in one sentence."""
    clients, rounds = len(agreement.members), agreement.settings.rounds
    over = "in one round" if rounds == 1 else f"in each of {rounds} rounds"
    noised = any(asked.sigma for asked in agreement.asked if asked.phase == "release")
    release = "noised release" if noised else "noiseless release"
    if aggregator.sums_only:
        sums = f"only sums of at least {agreement.threshold} of {clients} clients' {release}s, {over}"
        if not isinstance(aggregator, HomomorphicAggregator):
            return sums
        opened = "; a decryptor, which must not work with it, opens them and sees the same"
        return sums + opened + (", if it looks at nothing else" if aggregator.trusts_decryptor else "")
    return f"every client's {release}, {over}: nothing hides one client from the server"
