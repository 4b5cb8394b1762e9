#!/usr/bin/env python3
"""The bundle of a router in a large fleet, by the same hands as make.py's files: four cosigners, a fleet log of a million entries, three
gateways that one person proposed and three let in. Run once, after make.py, with the same packages."""
import make as m

STEMS = ["s1", "s2", "s3", "w1"]
cosigners = [(f"culvert.example/{stem}", m.ed(20 + n), m.TIME + n) for n, stem in enumerate(STEMS)]
people = {name: m.ed(30 + n) for n, name in enumerate(["alice", "bob", "carol", "dan"])}
witnesses = "".join(f"witness {stem} {m.vkey(name, 4, key)}\n" for stem, (name, key, _) in zip(STEMS, cosigners))
rule = "group validators 2 s1 s2 s3\ngroup both all validators w1\nquorum both\n"
words = "epoch 1\n" + "".join(f"person {name} ssh-ed25519 {m.b64(m.ssh_key(key))}\n" for name, key in people.items())
words += "group noc 2 alice bob carol\ngroup both all noc dan\nrule gateway both min-delay 10\nrule authority both min-delay 86400\n"
m.write("full.policy", "# Vectors of crates/trust\n[fleet]\nlog " + m.vkey(m.FLEET, 1, m.fleet_key) + "\n" + witnesses + rule
        + "\n[authority]\nlog " + m.vkey(m.AUTHORITY, 1, m.authority_key) + "\n" + witnesses + rule + "\n[people]\n" + words)


def proposal(n):
    record = m.cbor({0: 1, 1: f"gw{n}", 2: m.pub(m.ed(40 + n)), 3: m.pub(m.x(50 + n)),
                     4: [bytes([198, 18, 1, n]) + m.struct.pack(">H", 51820)], 5: "pop1", 6: [1, 300],
                     7: [bytes([10, 64, 0, n])], 8: [m.STAMP]})
    return m.cbor({0: 1, 1: 6, 2: record, 3: 1, 4: bytes([n] * 32), 5: m.TIME - 100, 6: m.TIME - 50, 7: 0, 8: "alice"})


proposals = [proposal(n) for n in [1, 2, 3]]
leaves = [m.sha(b"\0", m.sha(b"other", n.to_bytes(4, "big"))) for n in range(4_093)] + [m.sha(b"\0", it) for it in proposals]
logged = [(name, key, time - 60) for name, key, time in cosigners]
note = m.checkpoint(m.AUTHORITY, m.authority_key, leaves, logged)


def activation(n):
    signed = [(3, "alice", "propose"), (1, "bob", "approve"),
              (1, "carol", "approve"), (1, "dan", "approve")]
    approvals = [{0: 1, 1: m.sha(proposals[n]), 2: verdict, 3: name,
                  4: m.sshsig(people[name], purpose + "-gateway@culvert", proposals[n])} for verdict, name, purpose in signed]
    return {0: 1, 1: proposals[n], 2: approvals, 3: m.proof(4_093 + n, leaves, note)}


lease = m.cbor({0: 1, 1: m.sha(m.pub(m.device)), 2: 3, 3: m.pub(m.device_wg), 4: "pop1", 5: 1,
                6: [m.sha(m.pub(m.ed(40 + n))) for n in [1, 2, 3]], 7: [bytes([10, 64, 0, 2, 32])], 8: [m.STAMP],
                10: m.TIME - 60, 11: m.TIME + 604_800})
fleet = [m.sha(b"\0", n.to_bytes(4, "big")) for n in range(1_000_000)]
fleet[765_432] = m.sha(b"\0", m.sha(m.SALT, lease))
fleet_note = m.checkpoint(m.FLEET, m.fleet_key, fleet, cosigners)
m.write("full-bundle.hex", m.cbor({0: 1, 1: lease, 2: m.SALT, 3: m.proof(765_432, fleet, fleet_note),
                                   4: [activation(n) for n in range(3)], 5: m.subproof(700_000, fleet, True)}))
m.write("full-stored.hex", m.cbor({0: 1, 1: 2, 2: m.sha(b"an earlier lease"), 3: 700_000, 4: m.root(fleet[:700_000]), 5: m.TIME - 9}))
