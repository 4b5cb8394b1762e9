#!/usr/bin/env python3
"""Makes the files beside it, by other hands than the crate: cbor2 (canonical mode), cryptography,
hashlib. Run once with both packages installed; the files are committed and must not change."""
import base64, hashlib, hmac, pathlib, struct

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HERE = pathlib.Path(__file__).parent
TIME = 1_790_000_000


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def ed(n):
    return Ed25519PrivateKey.from_private_bytes(bytes([n] * 32))


def x(n):
    return X25519PrivateKey.from_private_bytes(bytes([n] * 32))


def pub(key):
    return key.public_key().public_bytes_raw()


def b64(data):
    return base64.b64encode(data).decode()


def cbor(fields):
    return cbor2.dumps(fields, canonical=True)


def root(leaves):
    if not leaves:
        return sha()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha(b"\1", root(leaves[:k]), root(leaves[k:]))


def path(m, leaves):
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return path(m, leaves[:k]) + [root(leaves[k:])]
    return path(m - k, leaves[k:]) + [root(leaves[:k])]


def subproof(m, leaves, whole):
    n = len(leaves)
    if m == n:
        return [] if whole else [root(leaves)]
    k = 1
    while k * 2 < n:
        k *= 2
    if m <= k:
        return subproof(m, leaves[:k], whole) + [root(leaves[k:])]
    return subproof(m - k, leaves[k:], False) + [root(leaves[:k])]


def note_id(name, alg, key):
    return sha(name.encode(), b"\n", bytes([alg]), pub(key))[:4]


def vkey(name, alg, key):
    return f"{name}+{note_id(name, alg, key).hex()}+{b64(bytes([alg]) + pub(key))}"


def checkpoint(origin, log, leaves, cosigners):
    body = f"{origin}\n{len(leaves)}\n{b64(root(leaves))}\n"
    note = body + f"\n\u2014 {origin} {b64(note_id(origin, 1, log) + log.sign(body.encode()))}\n"
    for name, key, time in cosigners:
        signature = key.sign(f"cosignature/v1\ntime {time}\n{body}".encode())
        line = note_id(name, 4, key) + struct.pack(">Q", time) + signature
        note += f"\u2014 {name} {b64(line)}\n"
    return note


def proof(index, leaves, note):
    lines = [f"index {index}"] + [b64(h) for h in path(index, leaves)]
    return "c2sp.org/tlog-proof@v1\n" + "\n".join(lines) + "\n\n" + note


def write(name, data):
    HERE.joinpath(name).write_text(data.hex() + "\n" if isinstance(data, bytes) else data)


def ssh_string(data):
    return struct.pack(">I", len(data)) + data


def ssh_key(key):
    return ssh_string(b"ssh-ed25519") + ssh_string(pub(key))


def sshsig(key, purpose, message):
    head = ssh_string(purpose.encode()) + ssh_string(b"") + ssh_string(b"sha512")
    signature = key.sign(b"SSHSIG" + head + ssh_string(hashlib.sha512(message).digest()))
    signature = ssh_string(b"ssh-ed25519") + ssh_string(signature)
    return b"SSHSIG" + struct.pack(">I", 1) + ssh_string(ssh_key(key)) + head + ssh_string(signature)


FLEET, AUTHORITY = "culvert.example/fleet", "culvert.example/authority"
fleet_key, authority_key, s1, s2 = ed(1), ed(2), ed(3), ed(4)
gateway, gateway_wg, device, device_wg, eph = ed(5), x(6), ed(7), x(8), x(9)
alice, bob = ed(10), ed(11)
cosigners = [("culvert.example/s1", s1, TIME), ("culvert.example/s2", s2, TIME + 5)]

witnesses = "".join(f"witness s{i + 1} {vkey(n, 4, k)}\n" for i, (n, k, _) in enumerate(cosigners))
rule = "group servers 2 s1 s2\nquorum servers\n"
people = "epoch 1\n" + "".join(f"person {name} ssh-ed25519 {b64(ssh_key(key))}\n"
                               for name, key in [("alice", alice), ("bob", bob)])
people += "rule gateway bob min-delay 10\nrule authority bob min-delay 86400\n"
write("trust.policy", "# Vectors of crates/trust\n[fleet]\nlog " + vkey(FLEET, 1, fleet_key)
      + "\n" + witnesses + rule + "\n[authority]\nlog " + vkey(AUTHORITY, 1, authority_key) + "\n"
      + witnesses + rule + "\n[people]\n" + people)

STAMP = "sdns://AQcAAAAAAAAADTEwLjY0LjAuMTo0NDM"
record = cbor({0: 1, 1: "gw1", 2: pub(gateway), 3: pub(gateway_wg),
               4: [bytes([198, 18, 1, 2]) + struct.pack(">H", 51820),
                   bytes.fromhex("20010db8000a00000000000000000002") + struct.pack(">H", 51820)],
               5: "pop1", 6: [1, 300], 7: [bytes([10, 64, 0, 1]), bytes.fromhex("fd64" + "00" * 13 + "01")],
               8: [STAMP]})
write("gateway-record.hex", record)
proposal = cbor({0: 1, 1: 6, 2: record, 3: 1, 4: bytes(range(32)), 5: TIME - 100, 6: TIME - 50, 7: 0,
                 8: "alice"})
write("proposal.hex", proposal)
approvals = [{0: 1, 1: sha(proposal), 2: verdict, 3: name, 4: sshsig(key, purpose + "-gateway@culvert", proposal)}
             for verdict, name, key, purpose in [(3, "alice", alice, "propose"), (1, "bob", bob, "approve")]]
authority_leaves = [sha(b"\0", e) for e in [b"genesis", proposal, b"later"]]
# It was logged a minute before all else: that is when its delay began.
logged = [(name, key, time - 60) for name, key, time in cosigners]
authority_note = checkpoint(AUTHORITY, authority_key, authority_leaves, logged)
activation = {0: 1, 1: proposal, 2: approvals, 3: proof(1, authority_leaves, authority_note)}
write("activation.hex", cbor(activation))

lease = cbor({0: 1, 1: sha(pub(device)), 2: 3, 3: pub(device_wg), 4: "pop1", 5: 1, 6: [sha(pub(gateway))],
              7: [bytes([10, 64, 0, 2, 32]), bytes.fromhex("fd64" + "00" * 13 + "02") + bytes([128])],
              8: [STAMP], 10: TIME - 60, 11: TIME + 604_800})
write("lease.hex", lease)
SALT = bytes([0xA5] * 32)
fleet_leaves = [sha(b"\0", sha(b"other", bytes([i]))) for i in range(7)]
fleet_leaves[4] = sha(b"\0", sha(SALT, lease))
revocation = cbor({0: 1, 1: sha(pub(device)), 2: 3, 3: 2, 4: TIME})
write("revocation.hex", revocation)
fleet_leaves[6] = sha(b"\0", sha(SALT, revocation))
note = checkpoint(FLEET, fleet_key, fleet_leaves, cosigners)
write("checkpoint.txt", note)
write("proof.txt", proof(4, fleet_leaves, note))
write("lease-bundle.hex", cbor({0: 1, 1: lease, 2: SALT, 3: proof(4, fleet_leaves, note), 4: [activation],
                                5: subproof(3, fleet_leaves, True)}))
write("stored.hex", cbor({0: 1, 1: 2, 2: sha(b"an earlier lease"), 3: 3, 4: root(fleet_leaves[:3]), 5: TIME - 9}))
entries = [{0: 1, 1: lease, 2: SALT, 3: proof(4, fleet_leaves, note)},
           {0: 2, 1: revocation, 2: SALT, 3: proof(6, fleet_leaves, note)}]
write("shard-page.hex", cbor({0: 1, 1: 1, 2: 40, 3: 42, 4: entries}))

# The claim code with the secret 0x0123456789abcdef0123456789a, as 105 bits.
secret = 0x0123456789ABCDEF0123456789A
secret_bytes = secret.to_bytes(16, "big")
check = int.from_bytes(sha(b"Culvert claim code v1 checksum", secret_bytes)[:3], "big") >> 4
symbols, value = "", (secret << 20) | check
for _ in range(25):
    symbols = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[value & 31] + symbols
    value >>= 5
seed = HKDF(hashes.SHA256(), 32, b"Culvert claim code v1", b"Ed25519 seed").derive(secret_bytes)
claim = Ed25519PrivateKey.from_private_bytes(seed)
write("claim-code.txt", "CV-" + "-".join(symbols[i:i + 5] for i in range(0, 25, 5)) + "\n")
write("claim-key.hex", pub(claim))

EXPORTER, NONCE = bytes([0xE1] * 32), bytes([0x5A] * 32)
write("challenge.hex", cbor({0: 1, 1: pub(eph), 2: NONCE}))
transcript = sha(b"Culvert enrolment v1 transcript\0", EXPORTER, pub(eph), NONCE, pub(device), pub(device_wg),
                 struct.pack(">QQ", 3, 1), pub(claim))
shared = device_wg.exchange(X25519PublicKey.from_public_bytes(pub(eph)))
write("enrol-request.hex", cbor({
    0: 1, 1: pub(device), 2: pub(device_wg), 3: NONCE, 4: 3,
    5: {0: 1, 1: pub(claim), 2: claim.sign(b"Culvert enrolment v1 claim\0" + transcript)},
    6: device.sign(b"Culvert enrolment v1 device\0" + transcript),
    7: hmac.new(shared, b"Culvert enrolment v1 tunnel\0" + transcript, "sha256").digest()}))
write("channel.txt", "Culvert-Key " + b64(pub(gateway) + gateway.sign(
    b"Culvert channel v1\0gateway\0" + EXPORTER)) + "\n")
