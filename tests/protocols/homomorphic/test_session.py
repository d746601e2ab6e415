"""Client, server and decryptor over real SEAL: what they do, and what they refuse, by name."""

import numpy as np
import pytest
import tenseal

from securekd_protocols import Diary, Identity, errors
from securekd_protocols.diary import CohortRule
from securekd_protocols.homomorphic import (
    DECRYPTOR,
    Decryptor,
    DecryptorState,
    HomomorphicClient,
    HomomorphicClientState,
    HomomorphicParameters,
    HomomorphicServer,
    HomomorphicServerState,
    HomomorphicSettings,
    SchemeName,
    simulate_homomorphic,
)
from securekd_protocols.homomorphic.messages import (
    HEADER_BYTES,
    SERVER,
    HomomorphicSum,
    Input,
    Kind,
    Open,
    parse_frame,
    seal_frame,
)
from tests.protocols.homomorphic.harness import (
    IDENTITIES,
    KEEPER,
    OPERATOR,
    Parties,
    parameters_of,
    parties,
    policy_of,
)

BOTH = pytest.mark.parametrize("name", SchemeName)


@BOTH
@pytest.mark.parametrize(("clients", "length", "bound", "silent"), [(3, 1, 1, 0), (5, 9000, 2**20, 2), (8, 300, 7, 1)])
def test_a_session_opens_the_exact_sum_of_the_survivors(name, clients, length, bound, silent):
    rng = np.random.default_rng(length)
    vectors = {f"bank {i}": rng.integers(-bound, bound + 1, length) for i in range(clients)}
    vectors["bank 0"][0] = bound
    dropouts = [f"bank {i}" for i in range(silent)]
    done = simulate_homomorphic(vectors, HomomorphicSettings(name, bound, 3), dropouts=dropouts)
    assert done.survivors == tuple(client for client in vectors if client not in dropouts)
    np.testing.assert_array_equal(done.total, sum(vectors[client] for client in done.survivors))
    assert set(done.bytes_up["input"]) == set(done.survivors)
    sent = done.scheme.ciphertexts(length) * done.scheme.ciphertext_bytes
    assert all(sent < count < sent + 300 for count in done.bytes_up["input"].values())


@BOTH
def test_a_hundred_clients(name):
    rng = np.random.default_rng(1)
    vectors = {i: rng.integers(-(2**15), 2**15 + 1, 2000) for i in range(100)}
    done = simulate_homomorphic(vectors, HomomorphicSettings(name, 2**15, 60), dropouts=range(10))
    np.testing.assert_array_equal(done.total, sum(vectors[i] for i in range(10, 100)))


@BOTH
def test_states(name):
    made = parties(name)
    assert {client.state for client in made.clients} == {HomomorphicClientState.SENT}
    assert made.server.state is HomomorphicServerState.INPUTS
    with pytest.raises(errors.CallOutOfOrder, match="no sum is open"):
        _ = made.server.result
    request = made.request(0, 1, 2)
    assert made.server.state is HomomorphicServerState.SUM
    (reply,) = made.decryptor.receive(request)
    assert made.decryptor.state is DecryptorState.CLOSED
    made.server.receive(reply)
    assert made.server.state is HomomorphicServerState.FINISHED
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors[:3]))
    assert made.server.result.survivors == (0, 1, 2)


@BOTH
def test_a_decryptor_opens_once(name):
    made = parties(name)
    request = made.request()
    made.decryptor.receive(request)
    with pytest.raises(errors.SecondOpening, match="used and is gone"):
        made.decryptor.receive(request)


@BOTH
def test_too_few(name):
    made = parties(name, 5, threshold=4)
    for i in range(3):
        made.server.receive(made.inputs[i])
    with pytest.raises(errors.TooFewSurvivors, match="3 inputs, and 4"):
        made.server.close_phase()
    assert made.server.state is HomomorphicServerState.ABORTED

    made = parties(name, 5, threshold=4)
    asked = Open.decode(parse_frame(made.request(), made.parameters).body, made.parameters)
    fewer = Open(asked.receipts[:3], asked.ciphertexts)
    with pytest.raises(errors.TooFewSurvivors, match="a sum of 3"):
        made.decryptor.receive(made.signed_by_server(Kind.OPEN, fewer.encode()))
    assert made.decryptor.state is DecryptorState.READY
    made.decryptor.receive(made.signed_by_server(Kind.OPEN, asked.encode()))


@BOTH
@pytest.mark.parametrize(
    ("vector", "error"),
    [
        (np.full(50, 1001), errors.ValueOutOfRange),
        (np.zeros(51, np.int64), errors.WrongLength),
        (np.zeros((50, 1), np.int64), errors.WrongLength),
        (np.zeros(50), errors.NotIntegers),
    ],
)
def test_inputs_that_are_not_as_agreed(name, vector, error):
    parameters = parameters_of(3, name)
    client = HomomorphicClient(IDENTITIES[0], policy_of(parameters))
    with pytest.raises(errors.CallOutOfOrder, match="no invitation"):
        client.submit(vector)
    client.receive(HomomorphicServer(parameters, OPERATOR).invitation())
    with pytest.raises(error):
        client.submit(vector)
    client.submit(np.zeros(50, np.int8))
    with pytest.raises(errors.SecondInput):
        client.submit(np.zeros(50, np.int8))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"threshold": 2}, errors.ThresholdUnsafe),
        ({"threshold": 3, "colluders": 2}, errors.ThresholdUnsafe),
        ({"threshold": 6}, errors.ThresholdUnsafe),
        ({"roster": ()}, errors.TooFewClients),
        ({"magnitude": 0}, errors.BadParameter),
        ({"vector_length": 0}, errors.BadParameter),
        ({"nonce": b""}, errors.BadParameter),
        ({"decryptor_public": OPERATOR.public}, errors.DuplicateKey),
        ({"decryptor_public": IDENTITIES[1].public}, errors.DuplicateKey),
        ({"magnitude": 2**50}, errors.NoParametersFit),
    ],
)
def test_unsafe_parameters_are_refused(changes, error):
    with pytest.raises(error):
        parameters_of(5, SchemeName.BFV, **changes)


@BOTH
def test_parameters_have_one_encoding_and_name_a_session(name):
    parameters = parameters_of(5, name, noise_tail=7, noise_variance=9)
    assert HomomorphicParameters.decode(parameters.encoded) == parameters
    assert len({parameters_of(5, other, nonce=bytes(32)).session_id for other in SchemeName}) == 2
    with pytest.raises(errors.MalformedMessage):
        HomomorphicParameters.decode(parameters.encoded + b"\0")
    changed = bytearray(parameters.encoded)
    place = parameters.encoded.index(parameters.scheme.moduli[0].to_bytes(8, "little"))
    changed[place] ^= 2
    with pytest.raises(errors.MalformedMessage, match="would not choose"):
        HomomorphicParameters.decode(bytes(changed))


@BOTH
def test_a_client_has_a_policy_of_its_own(name):
    parameters = parameters_of(5, name)
    invitation = HomomorphicServer(parameters, OPERATOR).invitation()
    stranger = Identity.generate(lambda n: bytes(n))
    for policy, error in (
        (policy_of(parameters, round_number=2), errors.PolicyRefused),
        (policy_of(parameters, lowest_noise_variance=1), errors.PolicyRefused),
        (policy_of(parameters, highest_magnitude=999), errors.PolicyRefused),
        (policy_of(parameters, context=b"other rows"), errors.ContextMismatch),
        (policy_of(parameters, known={}), errors.PolicyRefused),
        (policy_of(parameters, server_public=stranger.public), errors.BadSignature),
    ):
        for party in (HomomorphicClient(IDENTITIES[0], policy), Decryptor(KEEPER, policy)):
            with pytest.raises(error):
                party.receive(invitation)
    policy = policy_of(parameters)
    with pytest.raises(errors.PolicyRefused, match="at most 49"):
        HomomorphicClient(IDENTITIES[0], type(policy)(policy.local, KEEPER.public, 49)).receive(invitation)
    unknown = type(policy)(policy.local, stranger.public)
    with pytest.raises(errors.PolicyRefused, match="another decryptor"):
        HomomorphicClient(IDENTITIES[0], unknown).receive(invitation)
    with pytest.raises(errors.UnknownClient):
        HomomorphicClient(stranger, policy).receive(invitation)


@BOTH
def test_key_material_that_is_no_public_key_is_refused_loudly(name):
    parameters = parameters_of(3, name)
    client = HomomorphicClient(IDENTITIES[0], policy_of(parameters))
    server = HomomorphicServer(parameters, OPERATOR)
    client.receive(server.invitation())
    client.submit(np.zeros(50, np.int64))
    context = tenseal.context(
        tenseal.SCHEME_TYPE.BFV if name is SchemeName.BFV else tenseal.SCHEME_TYPE.CKKS, 4096, 40961, [40, 20, 40]
    )
    with_secret, without = (
        context.serialize(save_secret_key=secret, save_galois_keys=False, save_relin_keys=False)
        for secret in (True, False)
    )
    whole = 32 + parameters.scheme.public_key_bytes
    too_long = with_secret[: whole + 1].ljust(whole + 1, b"\0")
    for body, text in (
        (b"", "key material of 0 bytes"),
        (too_long, "consider it public"),
        (without[:500], "500 bytes"),
    ):
        frame = seal_frame(Kind.KEY, DECRYPTOR, parameters.session_id, body, KEEPER)
        for party in (client, server):
            with pytest.raises(errors.NotAPublicKey, match=text):
                party.receive(frame)
    for body in (bytes(whole), b"\x09" + bytes(31) + bytes(whole - 32)):
        frame = seal_frame(Kind.KEY, DECRYPTOR, parameters.session_id, body, KEEPER)
        with pytest.raises((errors.LowOrderPoint, errors.TransparentCiphertext)):
            client.receive(frame)
    assert client.state is HomomorphicClientState.ACCEPTED
    assert server.state is HomomorphicServerState.KEY
    (key,) = Decryptor(KEEPER, policy_of(parameters)).receive(server.invitation())
    assert len(client.receive(key)) == 1


@BOTH
def test_a_client_needs_its_input_before_the_key(name):
    parameters = parameters_of(3, name)
    policy = policy_of(parameters)
    client, decryptor = HomomorphicClient(IDENTITIES[0], policy), Decryptor(KEEPER, policy)
    invitation = HomomorphicServer(parameters, OPERATOR).invitation()
    (key,) = decryptor.receive(invitation)
    with pytest.raises(errors.MalformedMessage):  # before the invitation, nothing else is even read
        client.receive(key)
    client.receive(invitation)
    with pytest.raises(errors.CallOutOfOrder, match="no input"):
        client.receive(key)
    with pytest.raises(errors.OutOfOrder):
        client.receive(invitation)
    client.submit(np.zeros(50, np.int64))
    client.receive(key)
    with pytest.raises(errors.OutOfOrder, match="while sent"):
        client.receive(key)
    with pytest.raises(errors.SecondInput):
        client.submit(np.zeros(50, np.int64))


def remade(made: Parties, index: int, ciphertexts: bytes, signer: int | None = None) -> bytes:
    """A client's input with other ciphertexts, signed again."""
    old = Input.decode(parse_frame(made.inputs[index], made.parameters).body)
    body = Input.of(old.agreement, old.salt, ciphertexts).encode()
    identity = IDENTITIES[index if signer is None else signer]
    return seal_frame(Kind.INPUT, index, made.parameters.session_id, body, identity)


@BOTH
def test_hostile_ciphertexts_at_the_server(name):
    made = parties(name)
    honest = bytes(Input.decode(parse_frame(made.inputs[1], made.parameters).body).ciphertexts)
    other = parties(name)  # another session: other keys
    made.server.receive(made.inputs[0])
    size = len(made.inputs[1])
    attempts = [
        (b"", errors.MalformedMessage),
        (made.inputs[1][:-1], errors.MalformedMessage),
        (made.inputs[1] + b"\0", errors.MalformedMessage),
        (bytes(size), errors.MalformedMessage),
        (b"SKDH\x02" + made.inputs[1][5:], errors.UnknownVersion),
        (made.inputs[1][:5] + b"\x09" + made.inputs[1][6:], errors.MalformedMessage),
        (made.inputs[0], errors.ReplayedMessage),
        (other.inputs[1], errors.ReplayedMessage),
        (remade(made, 1, b""), errors.BadCiphertext),
        (remade(made, 1, honest[:-8]), errors.BadCiphertext),
        (remade(made, 1, b"\xff" * len(honest)), errors.BadCiphertext),
        (remade(made, 1, bytes(len(honest))), errors.TransparentCiphertext),
        (remade(made, 1, honest, signer=2), errors.BadSignature),
        (
            remade(made, 1, bytes(Input.decode(parse_frame(made.inputs[0], made.parameters).body).ciphertexts)),
            errors.ReplayedMessage,
        ),
        (made.inputs[1][: HEADER_BYTES + 70] + b"\x01" + made.inputs[1][HEADER_BYTES + 71 :], errors.MalformedMessage),
        (seal_frame(Kind.INPUT, 99, made.parameters.session_id, bytes(64), IDENTITIES[1]), errors.UnknownSender),
        (seal_frame(Kind.INPUT, SERVER, made.parameters.session_id, bytes(64), OPERATOR), errors.UnknownSender),
        (made.key, errors.OutOfOrder),
    ]
    for data, error in attempts:
        with pytest.raises(error):
            made.server.receive(data)
    for i in range(1, 4):  # and the session has not suffered
        outgoing = made.server.receive(made.inputs[i])
    made.server.receive(*made.decryptor.receive(outgoing[0].data))
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors))


@BOTH
def test_hostile_requests_at_the_decryptor(name):
    made = parties(name)
    request = made.request()
    asked = Open.decode(parse_frame(request, made.parameters).body, made.parameters)
    first, *rest = asked.receipts
    of_other = parties(name)
    forged = type(first)(first.client, first.agreement, first.digest, bytes(64))
    swapped = type(first)(first.client, rest[0].agreement, first.digest, first.signature)
    attempts = [
        (seal_frame(Kind.OPEN, SERVER, made.parameters.session_id, asked.encode(), IDENTITIES[0]), errors.BadSignature),
        (seal_frame(Kind.OPEN, 0, made.parameters.session_id, asked.encode(), IDENTITIES[0]), errors.UnknownSender),
        (of_other.request(), errors.ReplayedMessage),
        (made.inputs[0], errors.UnknownSender),
        (made.server.invitation(), errors.OutOfOrder),
        (made.signed_by_server(Kind.OPEN, Open((forged, *rest), asked.ciphertexts).encode()), errors.BadSignature),
        (made.signed_by_server(Kind.OPEN, Open((swapped, *rest), asked.ciphertexts).encode()), errors.BadSignature),
        (
            made.signed_by_server(Kind.OPEN, Open((first, first, *rest[1:]), asked.ciphertexts).encode()),
            errors.MalformedMessage,
        ),
        (made.signed_by_server(Kind.OPEN, Open(asked.receipts, b"").encode()), errors.MalformedMessage),
        (
            made.signed_by_server(Kind.OPEN, Open(asked.receipts, b"\xff" * len(asked.ciphertexts)).encode()),
            errors.BadCiphertext,
        ),
        (
            made.signed_by_server(Kind.OPEN, Open(asked.receipts, bytes(len(asked.ciphertexts))).encode()),
            errors.TransparentCiphertext,
        ),
    ]
    for data, error in attempts:
        with pytest.raises(error):
            made.decryptor.receive(data)
        assert made.decryptor.state is DecryptorState.READY
    made.server.receive(*made.decryptor.receive(request))
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors))


@BOTH
def test_a_sum_under_another_key_does_not_open(name):
    made, other = parties(name), parties(name)
    mine, theirs = (Open.decode(parse_frame(p.request(), p.parameters).body, p.parameters) for p in (made, other))
    mixed = Open(mine.receipts, bytes(theirs.ciphertexts))
    with pytest.raises((errors.NotTheSurvivorsSum, errors.SumOffGrid)):
        made.decryptor.receive(made.signed_by_server(Kind.OPEN, mixed.encode()))
    with pytest.raises(errors.SecondOpening):
        made.decryptor.receive(made.signed_by_server(Kind.OPEN, mine.encode()))


@BOTH
def test_a_server_believes_no_other_sum_than_it_asked_for(name):
    made = parties(name)
    (reply,) = made.decryptor.receive(made.request())
    body = bytes(parse_frame(reply, made.parameters).body)
    with pytest.raises(errors.BadSignature):
        made.server.receive(seal_frame(Kind.SUM, DECRYPTOR, made.parameters.session_id, body, IDENTITIES[0]))
    with pytest.raises(errors.UnknownSender):
        made.server.receive(seal_frame(Kind.SUM, 0, made.parameters.session_id, body, IDENTITIES[0]))
    fewer = b"\x03\x00" + body[2:8] + body[10:]
    with pytest.raises(errors.TranscriptMismatch):
        made.server.receive(seal_frame(Kind.SUM, DECRYPTOR, made.parameters.session_id, fewer, KEEPER))
    with pytest.raises(errors.BadParameter):
        HomomorphicServer(made.parameters, IDENTITIES[0])


@BOTH
@pytest.mark.parametrize("entry", [2**62, -(2**62), 4 * 1000 + 1, -4001, 2**63 - 1, -(2**63)])
def test_a_server_believes_no_sum_that_these_clients_can_not_have(name, entry):
    made = parties(name)
    (reply,) = made.decryptor.receive(made.request())
    genuine = HomomorphicSum.decode(parse_frame(reply, made.parameters).body, made.parameters)
    impossible = genuine.total.copy()
    impossible[7] = entry
    body = HomomorphicSum(impossible, genuine.survivors).encode()
    with pytest.raises(errors.SumOffGrid, match="no sum of 4 vectors within ±1000 has, from the decryptor"):
        made.server.receive(seal_frame(Kind.SUM, DECRYPTOR, made.parameters.session_id, body, KEEPER))
    assert made.server.state is HomomorphicServerState.SUM
    made.server.receive(reply)
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors))


def test_a_sum_of_fewer_clients_has_fewer_possible_values():
    made = parties(SchemeName.BFV, 5, noise_tail=10)
    (reply,) = made.decryptor.receive(made.request(0, 1, 2, 3))
    survivors = HomomorphicSum.decode(parse_frame(reply, made.parameters).body, made.parameters).survivors
    for entry, possible in ((4041, False), (4040, True)):
        body = HomomorphicSum(np.full(50, entry), survivors).encode()
        frame = seal_frame(Kind.SUM, DECRYPTOR, made.parameters.session_id, body, KEEPER)
        if possible:
            made.server.receive(frame)
        else:
            with pytest.raises(errors.SumOffGrid):
                made.server.receive(frame)


@pytest.mark.parametrize("threshold", [3, 10, 25])
def test_a_client_accepts_no_threshold_that_two_halves_reach_unless_it_is_told_to(threshold):
    parameters = parameters_of(50, SchemeName.BFV, threshold=threshold)
    invitation = HomomorphicServer(parameters, OPERATOR).invitation()
    for policy, floor in ((policy_of(parameters), 26), (policy_of(parameters, lowest_threshold=threshold + 1), None)):
        for party in (HomomorphicClient(IDENTITIES[0], policy), Decryptor(KEEPER, policy)):
            with pytest.raises(errors.PolicyRefused, match=f"at least {floor or threshold + 1} wanted; stay away, or"):
                party.receive(invitation)
    HomomorphicClient(IDENTITIES[0], policy_of(parameters, lowest_threshold=threshold)).receive(invitation)


@pytest.mark.parametrize("most", [1, 3, 16])
def test_accepted_invitations_are_counted(most):
    """Each may end in another sum with this client's input; the decryptor's diary judges what it opens."""
    parameters = parameters_of(3, SchemeName.BFV)
    invitations = [
        HomomorphicServer(one, OPERATOR).invitation()
        for one in (parameters, parameters_of(3, SchemeName.BFV), parameters)
    ]
    policy = policy_of(parameters, diary=Diary(CohortRule(3)), restarts=most)
    for number in range(most):
        HomomorphicClient(IDENTITIES[0], policy).receive(invitations[number % 3])
    with pytest.raises(errors.TooManyRestarts, match=f"{most} invitations for round 1"):
        HomomorphicClient(IDENTITIES[0], policy).receive(invitations[most % 3])


@BOTH
def test_the_decryptors_diary_refuses_cohorts_that_are_too_close(name):
    diary = Diary(CohortRule(smallest_difference=3))
    for senders, error in (((0, 1, 2, 3, 4), None), ((0, 1, 2, 3), errors.CohortRefused), ((0, 1, 2, 3, 4), None)):
        parameters = parameters_of(6, name, threshold=4)
        rng = np.random.default_rng(0)
        keeper = policy_of(parameters, diary=diary)
        made = Parties(parameters, list(rng.integers(-9, 9, (6, 50))), keeper)
        request = made.request(*senders)
        if error is None:
            assert len(made.decryptor.receive(request)) == 1
        else:
            with pytest.raises(error):
                made.decryptor.receive(request)
