"""A second implementation of the protocol, as plain as it can be, after SPEC.md and nothing else.

It imports nothing of the package. Everything is a Python integer, a list or bytes; nothing is checked, nothing is fast.
It plays a whole session of honest participants with given randomness, and must send the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
from itertools import count

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SERVER = 0xFFFF
P = 2**256 + 297
KINDS = [
    "INVITATION",
    "ADVERTISE",
    "KEY_BOOK",
    "SHARES",
    "SHARE_DELIVERY",
    "MASKED_INPUT",
    "SURVIVOR_LIST",
    "CONSISTENCY",
    "CONSISTENCY_PROOF",
    "UNMASK",
    "COMMIT",
    "COMMIT_BOOK",
]


def label(use):
    return b"securekd-protocols/1 " + use.encode() + b"\0"


def le(value, size):
    return value.to_bytes(size, "little")


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def index_set(items):
    return le(len(items), 2) + b"".join(le(i, 2) for i in sorted(items))


def rows(mapping):
    return le(len(mapping), 2) + b"".join(le(i, 2) + mapping[i] for i in sorted(mapping))


def blobs(items):
    return le(len(items), 2) + b"".join(le(len(item), 4) + item for item in items)


def hkdf(secret, salt, info, size=32):
    key, block, output = hmac.digest(salt, secret, "sha256"), b"", b""
    for number in count(1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        output += block
        if len(output) >= size:
            return output[:size]
    raise AssertionError


def clamp(scalar):
    return bytes([scalar[0] & 248]) + scalar[1:31] + bytes([scalar[31] & 127 | 64])


def public(scalar):
    return X25519PrivateKey.from_private_bytes(scalar).public_key().public_bytes_raw()


def agree(scalar, point):
    return X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(point))


def keystream_words(stream_key, number, width):
    """Counter mode by hand: nonce and counter, from 2 on, under ECB, cut into little-endian words of `width` bytes."""
    ecb = Cipher(algorithms.AES(stream_key[:16]), modes.ECB()).encryptor()
    counter, data = 2, b""
    while len(data) < number * width:
        data += ecb.update(stream_key[16:28] + counter.to_bytes(4, "big"))
        counter += 1
    return [int.from_bytes(data[i * width : (i + 1) * width], "little") for i in range(number)]


def share(secret, threshold, holders, draw):
    coefficients = [int.from_bytes(draw(48), "little") % P for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "little"))
    degree = threshold - 1
    return {h: sum(c * pow(h + 1, degree - i, P) for i, c in enumerate(coefficients)) % P for h in holders}


def recover(shares):
    total = 0
    for x, value in shares.items():
        term = value
        for y in shares:
            if y != x:
                term = term * (y + 1) * pow(y - x, -1, P) % P
        total += term
    return le(total % P, 32)


class Source:
    def __init__(self, data):
        self.data, self.at = data, 0

    def __call__(self, size):
        self.at += size
        return self.data[self.at - size : self.at]


class PlainClient:
    def __init__(self, session, index, private, random, vector):
        self.session, self.index, self.draw, self.vector = session, index, Source(random), vector
        self.identity = Ed25519PrivateKey.from_private_bytes(private)
        self.share_key, self.mask_key = clamp(self.draw(32)), clamp(self.draw(32))
        self.seed = self.draw(32)
        self.reveal = self.draw(32) if session.degree else b""
        self.held = {}

    def advertise(self):
        commitment = sha(label("seed commitment"), self.session.id, le(self.index, 2), self.seed)
        return public(self.share_key) + public(self.mask_key) + commitment + self.reveal

    def commitment(self):
        return sha(label("graph commitment"), self.session.id, le(self.index, 2), self.reveal)

    def shares(self):
        s = self.session
        holders = sorted(s.holders(self.index))
        seeds, keys = (share(secret, s.threshold, holders, self.draw) for secret in (self.seed, self.mask_key))
        boxes = {}
        for peer in holders:
            plaintext = le(seeds[peer], 33) + le(keys[peer], 33)
            if peer == self.index:
                self.held[peer] = plaintext
                continue
            ends = le(self.index, 2) + le(peer, 2)
            bound = label("share box") + s.id + s.transcript + ends
            key = hkdf(agree(self.share_key, s.advertised[peer][:32]), s.id, bound)
            nonce = self.draw(12)
            boxes[peer] = nonce + AESGCM(key).encrypt(nonce, plaintext, bound)
            s.clients[peer].held[self.index] = plaintext
        return boxes

    def masked(self):
        s = self.session
        total = list(self.vector)
        streams = [(1, hkdf(self.seed, s.id, label("self mask") + s.id + s.transcript + le(self.index, 2), 28))]
        for peer in sorted(s.neighbours(self.index) & s.sharers):
            low, high = sorted((self.index, peer))
            info = label("pair mask") + s.id + s.transcript + le(low, 2) + le(high, 2)
            secret = agree(self.mask_key, s.advertised[peer][32:64])
            streams.append((1 if self.index < peer else -1, hkdf(secret, s.id, info, 28)))
        for sign, key in streams:
            words = keystream_words(key, len(total), s.word_bytes)
            total = [a + sign * b for a, b in zip(total, words, strict=True)]
        data = b"".join(le(value % 2**s.bits, s.bits // 8) for value in total)
        secret = agree(self.share_key, public(s.server_key))
        key = hkdf(secret, s.id, label("input tag") + s.id + s.transcript + le(self.index, 2))
        return AESGCM(key).encrypt(bytes(12), b"", data) + data

    def unmask(self):
        s = self.session
        mine = sorted(owner for owner in s.sharers if self.index in s.holders(owner))
        alive, dead = ([o for o in mine if (o in s.survivors) is flag] for flag in (True, False))
        seeds = {owner: self.held[owner][:33] for owner in alive}
        keys = {owner: self.held[owner][33:] for owner in dead}
        return rows(seeds) + rows(keys)


class PlainSession:
    def __init__(self, vector):
        self.parameters = bytes.fromhex(vector["parameters"])
        p, at = self.parameters, 104
        self.threshold = int.from_bytes(p[at : at + 2], "little")
        self.length = int.from_bytes(p[108:112], "little")
        self.bits = p[136]
        self.degree = int.from_bytes(p[137:139], "little")
        self.n = int.from_bytes(p[144:146], "little")
        self.word_bytes = {16: 2, 24: 4, 32: 4, 64: 8}[self.bits]
        self.id = sha(label("session id"), p)
        self.transcript = self.id
        self.silent_from = vector["silent_from"]
        self.operator = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["identities"]["server"]))
        self.server_key = clamp(bytes.fromhex(vector["random"]["server"])[:32])
        self.clients = {}
        for i in range(self.n):
            name = f"client {i}"
            private, random = (bytes.fromhex(vector[part][name]) for part in ("identities", "random"))
            drawn = random or bytes(128)  # who is silent from the beginning has drawn nothing
            self.clients[i] = PlainClient(self, i, private, drawn, vector["inputs"][name])
        self.messages, self.advertised, self.order = [], {}, list(range(self.n))
        self.stages = ["commit"] if self.degree else []
        self.stages += ["advertise", "share", "masked_input", "consistency", "unmask"]

    def neighbours(self, index):
        if not self.degree:
            return set(self.advertised) - {index}
        place, half = self.order.index(index), self.degree // 2
        return {self.order[(place + step) % self.n] for step in range(-half, half + 1) if step}

    def holders(self, index):
        near = self.neighbours(index) & set(self.advertised)
        return near if self.degree else near | {index}

    def frame(self, kind, sender, body, identity, transcript=None):
        head = b"SKDA" + bytes([1, KINDS.index(kind)]) + le(sender, 2) + self.id
        head += (transcript or self.transcript) + le(len(body), 4)
        digest = sha(head, body[:16] if kind == "MASKED_INPUT" else body)
        if kind not in ("SHARES", "MASKED_INPUT", "UNMASK"):
            return head + body + identity.sign(label("message signature") + digest)
        secret = agree(self.clients[sender].share_key, public(self.server_key))
        info = label("message tag") + self.id + (transcript or self.transcript) + le(sender, 2)
        return head + body + hmac.digest(hkdf(secret, self.id, info, 64), digest, "sha512")

    def exchange(self, stage, down_kind, bodies, up_kind, answer, transcript):
        """The server sends a body to each client; those that are not silent answer; give the answers' frames."""
        for index in sorted(bodies):
            data = self.frame(down_kind, SERVER, bodies[index], self.operator, transcript)
            self.messages.append(("server", f"client {index}", data.hex()))
        answers, now = {}, self.stages.index(stage)
        for index in sorted(bodies):
            silent = self.silent_from.get(f"client {index}")
            if silent is None or self.stages.index(silent) > now:
                client = self.clients[index]
                answers[index] = self.frame(up_kind, index, answer(client), client.identity)
                self.messages.append((f"client {index}", "server", answers[index].hex()))
        return answers

    def run(self):
        everybody = range(self.n)
        down, bodies = "INVITATION", dict.fromkeys(everybody, self.parameters)
        if self.degree:
            answers = self.exchange("commit", down, bodies, "COMMIT", PlainClient.commitment, self.id)
            commitments = {i: self.clients[i].commitment() for i in answers}
            book, before = rows(commitments), self.transcript
            self.transcript = sha(label("transcript commitments"), before, book)
            down, bodies, transcript = "COMMIT_BOOK", dict.fromkeys(answers, book), before
        else:
            transcript = self.id
        frames = self.exchange("advertise", down, bodies, "ADVERTISE", PlainClient.advertise, transcript)
        self.share_stage(frames)

    def share_stage(self, frames):
        self.advertised = {i: self.clients[i].advertise() for i in frames}
        digests = {i: sha(body) for i, body in self.advertised.items()}
        revealed = b"\0\0"
        if self.degree:
            seed = sha(label("graph seed"), self.transcript, *(self.clients[i].reveal for i in sorted(frames)))
            self.order.sort(key=lambda i: sha(label("graph place"), seed, le(i, 2)))
            parts = [self.clients[i].reveal + digests[i] for i in sorted(frames)]
            revealed = le(len(parts), 2) + b"".join(parts)
        key, before = public(self.server_key), self.transcript
        self.transcript = sha(label("transcript keys"), before, key, rows(digests))
        books = {}
        for i in frames:
            near = (self.neighbours(i) | {i}) & set(frames)
            books[i] = key + revealed + blobs([frames[j] for j in sorted(near)])
        boxes = {}

        def answer(client):
            boxes[client.index] = client.shares()
            return rows(boxes[client.index])

        sharers = self.exchange("share", "KEY_BOOK", books, "SHARES", answer, before)
        self.sharers, before = set(sharers), self.transcript
        self.transcript = sha(label("transcript sharers"), before, index_set(sharers))
        self.mask_transcript = self.transcript
        deliveries = {i: index_set(sharers) + rows({j: boxes[j][i] for j in sharers if i in boxes[j]}) for i in sharers}
        masked = self.exchange("masked_input", "SHARE_DELIVERY", deliveries, "MASKED_INPUT", PlainClient.masked, before)
        self.finish(masked)

    def finish(self, masked):
        self.survivors, before = sorted(masked), self.transcript
        self.transcript = sha(label("transcript survivors"), before, index_set(self.survivors))
        lists = dict.fromkeys(masked, index_set(self.survivors))
        signed = self.exchange("consistency", "SURVIVOR_LIST", lists, "CONSISTENCY", lambda _: b"", before)
        proofs = {}
        for i in signed:
            near = self.neighbours(i) if self.degree else set(signed)
            proofs[i] = blobs([signed[j] for j in sorted(near & set(signed))])
        answers = self.exchange("unmask", "CONSISTENCY_PROOF", proofs, "UNMASK", PlainClient.unmask, self.transcript)
        self.total = self.open(masked, answers)

    def open(self, masked, answers):
        size = self.bits // 8
        total = [0] * self.length
        for data in masked.values():
            body = data[92:-64]
            total = [t + int.from_bytes(body[i * size : (i + 1) * size], "little") for i, t in enumerate(total)]
        for owner in sorted(self.sharers):
            held = {h: self.clients[h].held[owner] for h in answers if h in self.holders(owner)}
            chosen = sorted(held)[: self.threshold]
            seed, key = (
                recover({h: int.from_bytes(held[h][part], "little") for h in chosen})
                for part in (slice(0, 33), slice(33, 66))
            )
            bound = self.id + self.mask_transcript
            if owner in self.survivors:
                streams = [(-1, hkdf(seed, self.id, label("self mask") + bound + le(owner, 2), 28))]
            else:
                streams = []
                for peer in sorted(self.neighbours(owner) & set(self.survivors)):
                    info = label("pair mask") + bound + le(min(owner, peer), 2) + le(max(owner, peer), 2)
                    secret = agree(key, self.advertised[peer][32:64])
                    streams.append((-1 if peer < owner else 1, hkdf(secret, self.id, info, 28)))
            for sign, stream in streams:
                words = keystream_words(stream, self.length, self.word_bytes)
                total = [a + sign * b for a, b in zip(total, words, strict=True)]
        half = 2 ** (self.bits - 1)
        return [(value + half) % 2**self.bits - half for value in total]
