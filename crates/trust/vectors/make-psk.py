#!/usr/bin/env python3
"""Makes ml-kem.txt, kem-statement.hex, psk-offer.hex and psk.txt beside it, by other hands than the crate: kyber-py
(its own ML-KEM-768), cbor2 (canonical mode), cryptography, hashlib. The files are committed and must not change."""
import hashlib, pathlib

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from kyber_py.ml_kem import ML_KEM_768

HERE = pathlib.Path(__file__).parent
TIME = 1_790_000_000


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def pub(key):
    return key.public_key().public_bytes_raw()


def cbor(fields):
    return cbor2.dumps(fields, canonical=True)


def signed(key, domain, fields):
    body = cbor(fields)
    return cbor({0: 1, 1: body, 2: key.sign(domain + body)})


device = Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
gateway = Ed25519PrivateKey.from_private_bytes(bytes([2] * 32))
device_wg = X25519PrivateKey.from_private_bytes(bytes([3] * 32))
gateway_wg = X25519PrivateKey.from_private_bytes(bytes([4] * 32))
d, z, m = bytes([5] * 32), bytes([6] * 32), bytes([7] * 32)

ek, dk = ML_KEM_768._keygen_internal(d, z)
shared, ciphertext = ML_KEM_768._encaps_internal(ek, m)
assert ML_KEM_768.decaps(dk, ciphertext) == shared
garbled = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
rejected = ML_KEM_768.decaps(dk, garbled)
lines = [ek.hex(), ciphertext.hex(), shared.hex(), rejected.hex()]
(HERE / "ml-kem.txt").write_text("\n".join(lines) + "\n")

statement = signed(gateway, b"Culvert kem v1 statement\0", {0: 1, 1: pub(gateway), 2: ek, 3: TIME, 4: TIME + 172800})
(HERE / "kem-statement.hex").write_text(statement.hex() + "\n")

pair = [sha(pub(device)), pub(device_wg), sha(pub(gateway)), pub(gateway_wg)]
context = sha(b"Culvert psk v1 pair\0", *pair, sha(ek), ciphertext)
out = HKDF(hashes.SHA256(), 64, b"Culvert psk v1", context).derive(shared)
fields = {0: 1, 1: pub(device), 2: pair[1], 3: pair[2], 4: sha(ek), 5: ciphertext, 6: out[32:]}
offer = signed(device, b"Culvert psk v1 offer\0", fields)
(HERE / "psk-offer.hex").write_text(offer.hex() + "\n")
(HERE / "psk.txt").write_text(out[:32].hex() + "\n")
