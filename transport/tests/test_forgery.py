"""Handshakes that lie: each is refused before anything reaches the application, and counted under
one reason.

The forger is `transport.tests.wild`, which is neither of our engines.
"""

import datetime
from functools import cache

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from native.values import Algorithm
from transport import Identity, RefusalReason
from transport.tests.conftest import Start
from transport.tests.links import identity
from transport.tests.wild import Forgery, Wild

MLKEM_KEY_BYTES = 1_184
X25519_BYTES = 32
FALCON_COMPRESSED_512 = 0xFED7
X509 = 0  # RFC 7250's number for an ordinary certificate


@cache
def certificate() -> bytes:
    """A self-signed X.509 certificate, as everybody else uses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, moment, moment.replace(2036))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def long_form(spki: bytes) -> bytes:
    """The same key, with a length written in one byte more than needed: BER, not DER."""
    assert spki[0] == 0x30
    assert spki[1] == 0x82
    return bytes([0x30, 0x83, 0x00]) + spki[2:]


def flipped(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def another_spki(_: bytes) -> list[bytes]:
    return [identity(Algorithm.FALCON_512, 3).public_key.spki]


FORGERIES = {
    "no key": (Forgery(certificates=lambda _: []), RefusalReason.NO_PEER_KEY),
    "somebody else's key": (Forgery(certificates=another_spki), RefusalReason.BAD_SIGNATURE),
    "a signature with one bit changed": (
        Forgery(signature=lambda signature: flipped(signature, 300)),
        RefusalReason.BAD_SIGNATURE,
    ),
    "a signature with a trailing byte": (
        Forgery(signature=lambda signature: signature + b"\x00"),
        RefusalReason.BAD_SIGNATURE,
    ),
    "a compressed signature": (
        Forgery(signature=lambda signature: signature.rstrip(b"\x00")),
        RefusalReason.BAD_SIGNATURE,
    ),
    "an empty signature": (Forgery(signature=lambda _: b""), RefusalReason.BAD_SIGNATURE),
    "a signature over other words": (
        Forgery(signed=lambda signed: signed.replace(b"client", b"server")),
        RefusalReason.BAD_SIGNATURE,
    ),
    "a signature from another handshake": (
        Forgery(signed=flipped),
        RefusalReason.BAD_SIGNATURE,
    ),
    "a scheme nobody offered": (
        Forgery(scheme=FALCON_COMPRESSED_512),
        RefusalReason.BAD_SIGNATURE,
    ),
    "a key with a trailing byte": (
        Forgery(certificates=lambda spki: [spki + b"\x00"]),
        RefusalReason.BAD_KEY_ENCODING,
    ),
    "a key cut short": (
        Forgery(certificates=lambda spki: [spki[:-1]]),
        RefusalReason.BAD_KEY_ENCODING,
    ),
    "a key with another header byte": (
        Forgery(certificates=lambda spki: [flipped(spki, -897)]),
        RefusalReason.BAD_KEY_ENCODING,
    ),
    "a key in BER": (
        Forgery(certificates=lambda spki: [long_form(spki)]),
        RefusalReason.BAD_KEY_ENCODING,
    ),
    "an X.509 certificate": (
        Forgery(certificates=lambda _: [certificate()]),
        RefusalReason.BAD_KEY_ENCODING,
    ),
    "only X.509 offered": (
        Forgery(certificate_types=bytes([X509])),
        RefusalReason.NO_RAW_KEY,
    ),
    "no kind of certificate offered": (
        Forgery(certificate_types=b""),
        RefusalReason.NO_RAW_KEY,
    ),
    "an ML-KEM key with coefficients beyond the modulus": (
        Forgery(share=lambda share: b"\xff" * MLKEM_KEY_BYTES + share[MLKEM_KEY_BYTES:]),
        RefusalReason.BAD_KEY_SHARE,
    ),
    "a key share cut short": (Forgery(share=lambda share: share[:-1]), RefusalReason.BAD_KEY_SHARE),
    "a key share with a trailing byte": (
        Forgery(share=lambda share: share + b"\x00"),
        RefusalReason.BAD_KEY_SHARE,
    ),
    "an X25519 point of small order": (
        Forgery(share=lambda share: share[:-X25519_BYTES] + bytes(X25519_BYTES)),
        RefusalReason.BAD_KEY_SHARE,
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_handshake_is_refused(
    start: Start, identities: list[Identity], forgery: str
) -> None:
    lie, reason = FORGERIES[forgery]
    acceptor = await start(identities[0])
    async with Wild(identities[1], acceptor.address, forgery=lie) as wild:
        told = await wild.told()
        assert 0x100 <= told.error_code <= 0x1FF  # an alert of TLS
        with trio.fail_after(10):
            while acceptor.statistics().handshakes:
                await trio.lowlevel.checkpoint()
    refused = {r: n for r, n in acceptor.statistics().refused_total.items() if n}
    assert refused == {reason: 1}
    assert acceptor.connections == ()
