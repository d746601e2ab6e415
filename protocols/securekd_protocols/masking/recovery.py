"""What the server does with the unmasking shares: recover, check, and take the masks away.

A recovered seed must hash to its owner's commitment, and a recovered mask key must have the public key that its owner
advertised. A wrong share therefore ends the session; it can not spoil the sum.
"""

from __future__ import annotations

from collections.abc import Mapping

from securekd_protocols.errors import TamperedShare, TooFewSurvivors
from securekd_protocols.keys import AgreementKey, Binding, commit_to_seed
from securekd_protocols.masking.collected import Collected
from securekd_protocols.messages import Advertise
from securekd_protocols.ring import Mask, pair_mask, self_mask
from securekd_protocols.shamir import combine

_START_ANEW = "end the session; start anew without the client that sent a wrong share"


def leftover_masks(collected: Collected) -> list[Mask]:
    """The masks that are still on the sum of the survivors' masked inputs, negated.

    Args:
        collected: The session, with all answers that will come.

    Returns:
        One mask for each survivor, and one for each pair of a survivor and a neighbour of it that dropped out after
        sharing.

    Raises:
        TooFewSurvivors: Fewer than threshold holders of somebody's shares have answered.
        TamperedShare: A recovered secret is not the one that its owner committed to.
    """
    seed_shares: dict[int, dict[int, int]] = {}
    key_shares: dict[int, dict[int, int]] = {}
    for helper in sorted(collected.unmask):
        for held in collected.unmask[helper].seeds:
            seed_shares.setdefault(held.owner, {})[helper] = held.share
        for held in collected.unmask[helper].keys:
            key_shares.setdefault(held.owner, {})[helper] = held.share
    binding, survivors, masks = collected.binding, set(collected.survivors), []
    for owner in collected.sharers:
        shares = (seed_shares if owner in survivors else key_shares).get(owner, {})
        near = sorted(collected.graph.neighbours(owner) & survivors)
        if owner not in survivors and not near:
            continue
        shares = _just_enough(shares, collected.parameters.threshold, owner)
        advertise = collected.advertised[owner]
        if owner in survivors:
            seed = _recover_seed(shares, owner, advertise, binding)
            masks.append(self_mask(seed, binding, owner).negated())
            continue
        key = _recover_key(shares, owner, advertise)
        for survivor in near:
            secret = key.agree(collected.advertised[survivor].mask_key)
            masks.append(pair_mask(secret, binding, survivor, owner).negated())
    return masks


def _just_enough(shares: Mapping[int, int], threshold: int, owner: int) -> dict[int, int]:
    if len(shares) < threshold:
        raise TooFewSurvivors(
            f"{len(shares)} holders of client {owner}'s shares are left, and {threshold} are needed",
            "begin a new session, with more clients or more patience",
        )
    return {helper: shares[helper] for helper in sorted(shares)[:threshold]}


def _recover_seed(shares: Mapping[int, int], owner: int, advertise: Advertise, binding: Binding) -> bytes:
    seed = combine(shares)
    if commit_to_seed(binding.session_id, owner, seed) != advertise.seed_commitment:
        raise TamperedShare(f"the seed recovered for client {owner} is not what it committed to", _START_ANEW)
    return seed


def _recover_key(shares: Mapping[int, int], owner: int, advertise: Advertise) -> AgreementKey:
    key = AgreementKey(combine(shares))
    if not key.is_clamped or key.public != advertise.mask_key:
        raise TamperedShare(f"the mask key recovered for client {owner} is not what it advertised", _START_ANEW)
    return key
