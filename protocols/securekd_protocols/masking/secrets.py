"""A client's secrets of one session, and what it does with them before it masks.

Shares of a seed and of a mask key travel together, sealed for one recipient (Bonawitz et al. 2017, figure 4, round 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from securekd_protocols.errors import DuplicateKey, MalformedMessage, TamperedShare
from securekd_protocols.graph import REVEAL_BYTES
from securekd_protocols.keys import AgreementKey, Binding, check_canonical, check_order, commit_to_seed, seal, unseal
from securekd_protocols.messages import Advertise, Box, SharePair, Shares
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.ring import Mask, pair_mask, self_mask
from securekd_protocols.shamir import SECRET_BYTES, split


@dataclass(frozen=True)
class SessionSecrets:
    """Drawn once, for one session. Two sessions with the same mask key would open each other at the first dropout.

    Attributes:
        share_key: Opens the boxes that others send; never leaves.
        mask_key: Agrees on pairwise masks; recovered by the survivors if its owner drops out.
        seed: Expands to the self-mask; recovered by the survivors if its owner does not drop out. 32 bytes.
        reveal: The owner's part of the graph seed, 32 bytes; secret until all have committed; else empty.
    """

    share_key: AgreementKey
    mask_key: AgreementKey
    seed: bytes = field(repr=False)
    reveal: bytes = field(repr=False, default=b"")

    @classmethod
    def generate(cls, random_bytes: RandomBytes, *, regular: bool = False) -> SessionSecrets:
        """Draw both keys and the seed, and in a k-regular graph a part of the graph seed."""
        keys = AgreementKey.generate(random_bytes), AgreementKey.generate(random_bytes)
        return cls(*keys, random_bytes(SECRET_BYTES), random_bytes(REVEAL_BYTES) if regular else b"")

    def advertise(self, session_id: bytes, owner: int) -> Advertise:
        """The public half."""
        commitment = commit_to_seed(session_id, owner, self.seed)
        return Advertise(self.share_key.public, self.mask_key.public, commitment, self.reveal)


def check_advertise(index: int, message: Advertise, owners: dict[bytes, int]) -> None:
    """Refuse keys that are misspelt, or that stand twice, and note whose the others are.

    Args:
        index: The advertising client.
        message: Its keys.
        owners: Owner by key of everything that was advertised before; grows by two keys, or not at all.

    Raises:
        NonCanonicalKey: A key is a second spelling of another.
        LowOrderPoint: No secret can be shared with a key.
        DuplicateKey: A key stands twice, within one client or between two.
    """
    if message.share_key == message.mask_key:
        raise DuplicateKey(f"client {index} advertises the key {message.mask_key.hex()} twice", "leave it out")
    for key in (message.share_key, message.mask_key):
        check_canonical(key)
        check_order(key)
        if key in owners:
            raise DuplicateKey(
                f"clients {owners[key]} and {index} advertise the key {key.hex()}", "leave the later one out"
            )
    owners |= {message.share_key: index, message.mask_key: index}


@dataclass(frozen=True)
class PairSecrets:
    """The raw X25519 secrets of a pair of clients; each goes through HKDF before use.

    Attributes:
        share: Of the two share keys.
        mask: Of the two mask keys.
    """

    share: bytes = field(repr=False)
    mask: bytes = field(repr=False)


def agree_with_all(secrets: SessionSecrets, owner: int, advertised: Mapping[int, Advertise]) -> dict[int, PairSecrets]:
    """Agree with every neighbour on both secrets, before anything is sent that depends on them.

    Raises:
        LowOrderPoint: Somebody's key gives no secret.
    """
    return {
        peer: PairSecrets(secrets.share_key.agree(message.share_key), secrets.mask_key.agree(message.mask_key))
        for peer, message in advertised.items()
        if peer != owner
    }


def seal_shares(
    secrets: SessionSecrets,
    owner: int,
    threshold: int,
    holders: Iterable[int],
    pairs: Mapping[int, PairSecrets],
    binding: Binding,
    random_bytes: RandomBytes,
) -> tuple[SharePair | None, Shares]:
    """Share seed and mask key among the holders.

    Args:
        secrets: The owner's.
        owner: Its index.
        threshold: Shares that recover a secret.
        holders: Who gets a share: neighbours that have advertised, and in a complete graph the owner too.
        pairs: Secrets with each neighbour.
        binding: Session and transcript after the advertise stage.
        random_bytes: Source of coefficients and nonces.

    Returns:
        The owner's own pair, if it is a holder, and the message with a box for each other one.
    """
    ordered = sorted(holders)
    seeds = split(secrets.seed, threshold, ordered, random_bytes)
    keys = split(secrets.mask_key.private, threshold, ordered, random_bytes)
    boxes = tuple(
        Box(
            peer,
            seal(pairs[peer].share, binding, owner, peer, SharePair(seeds[peer], keys[peer]).encode(), random_bytes),
        )
        for peer in ordered
        if peer != owner
    )
    own = SharePair(seeds[owner], keys[owner]) if owner in seeds else None
    return own, Shares(boxes)


def open_boxes(
    owner: int, boxes: tuple[Box, ...], pairs: Mapping[int, PairSecrets], binding: Binding
) -> dict[int, SharePair]:
    """Open the boxes that others have sealed for the owner.

    Returns:
        The pair held of each sender.

    Raises:
        TamperedShare: A box does not authenticate, or holds no field elements.
    """
    held = {}
    for box in boxes:
        plaintext = unseal(pairs[box.peer].share, binding, box.peer, owner, box.sealed)
        try:
            held[box.peer] = SharePair.decode(plaintext)
        except MalformedMessage as error:
            raise TamperedShare(f"client {box.peer} sent no field elements as shares", "leave it out") from error
    return held


def masks_of(
    secrets: SessionSecrets, owner: int, sharers: tuple[int, ...], pairs: Mapping[int, PairSecrets], binding: Binding
) -> list[Mask]:
    """Every mask that the owner applies: its own, and one for each neighbour that has shared.

    Args:
        secrets: The owner's.
        owner: Its index.
        sharers: The clients whose shares were delivered.
        pairs: Secrets with each neighbour.
        binding: Session and transcript after the share stage.

    Returns:
        The self-mask first, then the pairwise ones.
    """
    masks = [self_mask(secrets.seed, binding, owner)]
    masks.extend(pair_mask(pairs[peer].mask, binding, owner, peer) for peer in sharers if peer in pairs)
    return masks
