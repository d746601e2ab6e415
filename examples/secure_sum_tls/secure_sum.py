"""A secure sum between real processes, over asyncio and TLS, on this machine.

    python secure_sum.py --clients 5 --length 1000 --kill 3:share --timeout 5

A frame travels behind its length. Whoever has not answered a stage after `timeout` seconds has dropped out. What is
printed is "exact" and who is in the sum, or the name of the error that ended the session.
"""

import argparse
import asyncio
import datetime
import multiprocessing
import os
import ssl
import tempfile
import time
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import securekd_protocols as sp

CONTEXT, MAGNITUDE, DAY = b"secure sum example", 1_000_000, datetime.timedelta(days=1)
STAGES = ("connect", "advertise", "share", "masked_input", "consistency", "unmask")  # where a client can be killed


def _input_of(index: int, length: int) -> np.ndarray:
    return np.random.default_rng(index).integers(-MAGNITUDE, MAGNITUDE + 1, length)


def _make_certificate(folder: Path) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.pem").write_bytes(key.private_bytes(pem, *plain) + certificate.public_bytes(pem))
    (folder / "trusted.pem").write_bytes(certificate.public_bytes(pem))


async def _receive(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(len(data).to_bytes(4, "big") + data)


async def serve(folder: Path, operator: sp.Identity, known: dict, length: int, timeout: float, pipe) -> None:
    """The server: collect, wait, close stages, and tell what came of it."""
    roster = tuple(sp.Member(name, public) for name, public in known.items())
    terms = (sp.recommended_threshold(len(roster)), 1, length, MAGNITUDE, 1, os.urandom(32), sp.hash_context(CONTEXT))
    server = sp.MaskingServer(sp.SessionParameters(roster, operator.public, *terms), operator)
    inbox: asyncio.Queue[bytes] = asyncio.Queue()
    writers: dict[int, asyncio.StreamWriter] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writers[int.from_bytes(await reader.readexactly(2), "big")] = writer  # whom to send to, and no more
            _send(writer, server.invitation())
            while True:
                await inbox.put(await _receive(reader))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    (tls := ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)).load_cert_chain(folder / "tls.pem")
    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    pipe.send(listener.sockets[0].getsockname()[1])
    deadline = time.monotonic() + timeout
    while server.state is not sp.ServerState.FINISHED:
        state, outgoing = server.state, []
        try:
            outgoing = server.receive(await asyncio.wait_for(inbox.get(), deadline - time.monotonic()))
        except TimeoutError:
            outgoing = server.close_phase()
        except sp.ProtocolError:  # a bad message is dropped; the session goes on, unless it has just ended
            if server.state is sp.ServerState.ABORTED:
                raise
        for message in outgoing:
            if message.recipient in writers:
                _send(writers[message.recipient], message.data)
        if server.state is not state:
            deadline = time.monotonic() + timeout
    survivors = server.result.survivors
    exact = (server.result.total == sum(_input_of(i, length) for i in survivors)).all()
    pipe.send(f"{'exact' if exact else 'WRONG'} {survivors}")


async def take_part(folder: Path, port: int, identity, policy, index: int, length: int, die_before: str | None) -> None:
    """One client: answer until there is nothing left to answer, or die."""
    client, stages = sp.MaskingClient(identity, policy), iter(STAGES)
    if next(stages) == die_before:
        os._exit(1)
    tls = ssl.create_default_context(cafile=str(folder / "trusted.pem"))
    reader, writer = await asyncio.open_connection("localhost", port, ssl=tls)
    writer.write(index.to_bytes(2, "big"))
    while client.state is not sp.ClientState.UNMASKED:
        replies = client.receive(await _receive(reader))
        if client.state is sp.ClientState.ADVERTISED:
            client.submit(_input_of(index, length))
        if next(stages) == die_before:
            os._exit(1)  # as if the power had failed
        _send(writer, replies[0])
    await writer.drain()


def _run(role, *arguments) -> None:
    try:
        asyncio.run(role(*arguments))
    except (sp.ProtocolError, OSError, EOFError) as error:
        if role is serve:
            arguments[-1].send(type(error).__name__)


def secure_sum(clients: int, length: int, timeout: float, kill: dict[str, str], wait: float | None = None) -> str:
    """Start a server and its clients, each in a process of its own, and give the server's last word."""
    spawn = multiprocessing.get_context("forkserver")  # imports once, forks for each process
    operator, *identities = [sp.Identity.generate(os.urandom) for _ in range(clients + 1)]
    known = {str(i): identity.public for i, identity in enumerate(identities)}
    policy = sp.LocalPolicy(operator.public, known, CONTEXT, round_number=1)
    ours, theirs = spawn.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        _make_certificate(Path(folder))
        everybody = [spawn.Process(target=_run, args=(serve, Path(folder), operator, known, length, timeout, theirs))]
        everybody[0].start()
        port = ours.recv()
        for i, identity in enumerate(identities):
            job = (take_part, Path(folder), port, identity, policy, i, length, kill.get(str(i)))
            everybody.append(spawn.Process(target=_run, args=job))
            everybody[-1].start()
        last_word = ours.recv() if ours.poll(wait) else "no answer in time"
        for process in everybody:
            process.kill()
        return last_word


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--clients", 5), ("--length", 1000), ("--timeout", 5.0)):
        parser.add_argument(name, type=type(default), default=default)
    parser.add_argument("--kill", nargs="*", default=[], help=f"INDEX:STAGE, with a stage of {', '.join(STAGES)}")
    given = parser.parse_args()
    print(secure_sum(given.clients, given.length, given.timeout, dict(pair.split(":") for pair in given.kill)))
