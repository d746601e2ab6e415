"""What any part insists on, whichever way releases are added up."""

from securekd.errors import RunError
from securekd.federation.aggregation.seam import Directory, Terms
from securekd_protocols import LocalPolicy, Member


def roster(who: Directory) -> tuple[Member, ...]:
    """Clients under their numbers: an institution's name may be anything."""
    return tuple(Member(repr(number), public) for number, public in enumerate(who.clients))


def local_policy(terms: Terms, who: Directory) -> LocalPolicy:
    """What a party has agreed on itself, whatever the server would like."""
    return LocalPolicy(
        server_public=who.server,
        known={member.name: member.public for member in roster(who)},
        context=terms.context,
        round_number=terms.round_number,
        colluders=terms.colluders,
        lowest_threshold=terms.threshold,
        highest_magnitude=terms.magnitude,
        lowest_noise_variance=terms.noise_variance,
    )


def refuse_too_few(survivors: int, terms: Terms) -> None:
    """Refuse a sum of too few.

    Raises:
        RunError: with how many.
    """
    if survivors < terms.threshold:
        raise RunError(
            f"{survivors} of {terms.clients} clients survived round {terms.round_number}, "
            f"and {terms.threshold} are needed"
        )
