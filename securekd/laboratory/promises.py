"""What a finished run must not show: more ε than was asked for, or more leakage than is proven. Exit code 3."""

from collections.abc import Sequence
from dataclasses import dataclass

from securekd.errors import PromiseError
from securekd.laboratory.leakage import Measured
from securekd.privacy.accountant import Guarantee
from securekd.records.record import CanaryBound, GuaranteeRecord, Leakage, Replay
from securekd.settings.privacy import Privacy


def refuse_overspending(asked: Privacy, proven: Sequence[Guarantee | GuaranteeRecord]) -> None:
    """Raise `PromiseError` if the ledger proves more than the ε that was asked for: calibration is checked afterwards.

    Nothing can be checked where no ε is given (seeded noise, no DP-SGD); the record says so.
    """
    for found in proven:
        if found.unit == "example":
            target = asked.epsilon if asked.dp_sgd else None
        else:
            target = asked.client_epsilon if found.view == "server" else None
        if target is not None and found.epsilon is not None and found.epsilon > target * (1 + 1e-9):
            raise PromiseError(
                f"against {found.view}, the ledger proves ε = {found.epsilon:.6g} for one {found.unit}, above the "
                f"{target:.6g} that was asked for: this is a bug, report it"
            )


def refuse_leak(measured: Measured) -> None:
    """Raise `PromiseError` if an attack proves more leakage than the accountant allows.

    Where non-members are not drawn as members are (institutions that differ, a test set from elsewhere), a classifier
    tells the two apart without any leak, and nothing is concluded. Canaries in and out differ by coins alone.
    """
    for claim in _claims(measured):
        epsilon = claim.by.epsilon
        if epsilon is not None and claim.epsilon_lower > epsilon:
            raise PromiseError(
                f"{claim.attack} at {claim.by.point} proves ε ≥ {claim.epsilon_lower:.3g} with "
                f"{claim.by.confidence:.0%} confidence, above the promised {epsilon:.3g}: this is a bug, report it"
            )


@dataclass(frozen=True)
class _Claim:
    attack: str
    epsilon_lower: float
    by: Leakage | CanaryBound | Replay


def _claims(measured: Measured) -> list[_Claim]:
    claims = [_Claim(f"the {x.attack} attack", x.epsilon_lower, x) for x in measured.leakage if x.comparable]
    if measured.canaries is not None:
        claims += [
            _Claim(f"the {x.attack} attack on {x.kind} canaries", x.epsilon_lower, x) for x in measured.canaries.bounds
        ]
    test = "the optimal test on replayed releases"
    for x in measured.replays:
        claims.append(_Claim(test, x.epsilon_lower, x))
        if x.epsilon_lower_gaussian is not None:
            claims.append(_Claim(f"{test} (if their trade-off is Gaussian)", x.epsilon_lower_gaussian, x))
    return claims
