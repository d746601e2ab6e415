"""What the server does with the unmasking shares: recover, check, and take the masks away.

A recovered seed must hash to its owner's commitment, and a recovered mask key must have the public key that its owner
advertised. A wrong share therefore ends the session; it can not spoil the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from securekd_protocols.errors import TamperedShare
from securekd_protocols.keys import AgreementKey, Binding, commit_to_seed
from securekd_protocols.messages import Advertise, Unmask
from securekd_protocols.ring import Mask, pair_mask, self_mask
from securekd_protocols.shamir import combine

_START_ANEW = "end the session; start anew without the client that sent a wrong share"


def leftover_masks(
    answers: Mapping[int, Unmask],
    threshold: int,
    advertised: Mapping[int, Advertise],
    survivors: Iterable[int],
    binding: Binding,
) -> list[Mask]:
    """The masks that are still on the sum of the survivors' masked inputs, negated.

    Args:
        answers: Unmasking shares by sender, each with exactly the survivors' seeds and the others' keys; at least
            `threshold` of them.
        threshold: Shares that recover a secret.
        advertised: Keys by index.
        survivors: Whose inputs are in the sum.
        binding: Session, and transcript after the share stage.

    Returns:
        One mask for each survivor, and one for each pair of a survivor and a client that dropped out after sharing.

    Raises:
        TamperedShare: A recovered secret is not the one that its owner committed to.
    """
    helpers = sorted(answers)[:threshold]
    seed_shares: dict[int, dict[int, int]] = {}
    key_shares: dict[int, dict[int, int]] = {}
    for helper in helpers:
        for held in answers[helper].seeds:
            seed_shares.setdefault(held.owner, {})[helper] = held.share
        for held in answers[helper].keys:
            key_shares.setdefault(held.owner, {})[helper] = held.share
    masks = []
    for owner, shares in seed_shares.items():
        seed = _recover_seed(shares, owner, advertised[owner], binding)
        masks.append(self_mask(seed, binding, owner).negated())
    survivors = tuple(survivors)
    for owner, shares in key_shares.items():
        key = _recover_key(shares, owner, advertised[owner])
        for survivor in survivors:
            secret = key.agree(advertised[survivor].mask_key)
            masks.append(pair_mask(secret, binding, survivor, owner).negated())
    return masks


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
