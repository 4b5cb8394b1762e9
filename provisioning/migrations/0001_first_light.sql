-- One box, one file. No column here can hold a flow, a DNS name or a remote address:
-- text is an enumeration or an opaque word, bytes are 32 long or a signed statement.
-- store/schema_test.rs lists every column and holds it to that.

CREATE TABLE server (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 32 AND name NOT GLOB '*[^A-Za-z0-9_-]*'),
    created_at INTEGER NOT NULL
) STRICT;

-- A claim is the public half of a code: this table enrols nobody.
CREATE TABLE claim (
    claim_pub   BLOB PRIMARY KEY CHECK (length(claim_pub) = 32),
    slot        TEXT CHECK (length(slot) BETWEEN 1 AND 64 AND slot NOT GLOB '*[^A-Za-z0-9_-]*'),
    pop         TEXT NOT NULL CHECK (length(pop) BETWEEN 1 AND 32 AND pop NOT GLOB '*[^A-Za-z0-9_-]*'),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    -- The first device that proved the code. Set once.
    devid_hash  BLOB REFERENCES device (devid_hash) CHECK (length(devid_hash) = 32),
    spent_at    INTEGER,
    CHECK ((devid_hash IS NULL) = (spent_at IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE pool (
    pop    TEXT NOT NULL CHECK (length(pop) BETWEEN 1 AND 32 AND pop NOT GLOB '*[^A-Za-z0-9_-]*'),
    shard  INTEGER NOT NULL UNIQUE,
    -- Network and prefix length, as they were when the first address was given.
    net_v4 BLOB NOT NULL CHECK (length(net_v4) = 5),
    net_v6 BLOB NOT NULL CHECK (length(net_v6) = 17),
    PRIMARY KEY (pop, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE device (
    devid_hash     BLOB PRIMARY KEY CHECK (length(devid_hash) = 32),
    devid_pub      BLOB NOT NULL CHECK (length(devid_pub) = 32),
    slot           TEXT CHECK (length(slot) BETWEEN 1 AND 64 AND slot NOT GLOB '*[^A-Za-z0-9_-]*'),
    pop            TEXT NOT NULL CHECK (length(pop) BETWEEN 1 AND 32 AND pop NOT GLOB '*[^A-Za-z0-9_-]*'),
    shard          INTEGER NOT NULL,
    -- Position in the shard's pool: an address belongs to one device for ever.
    pool_offset    INTEGER NOT NULL CHECK (pool_offset >= 0),
    epoch          INTEGER NOT NULL CHECK (epoch >= 1),
    enrolled_at    INTEGER NOT NULL,
    revoked_at     INTEGER,
    revoked_reason INTEGER,
    UNIQUE (shard, pool_offset),
    FOREIGN KEY (pop, shard) REFERENCES pool (pop, shard),
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE lease (
    devid_hash BLOB NOT NULL REFERENCES device (devid_hash) CHECK (length(devid_hash) = 32),
    epoch      INTEGER NOT NULL,
    wg_pub     BLOB NOT NULL CHECK (length(wg_pub) = 32),
    statement  BLOB NOT NULL,
    salt       BLOB NOT NULL CHECK (length(salt) = 32),
    leaf       INTEGER NOT NULL UNIQUE,
    issued_at  INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    PRIMARY KEY (devid_hash, epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_wg_pub ON lease (wg_pub);

CREATE TABLE revocation (
    devid_hash BLOB PRIMARY KEY REFERENCES device (devid_hash) CHECK (length(devid_hash) = 32),
    statement  BLOB NOT NULL,
    salt       BLOB NOT NULL CHECK (length(salt) = 32),
    leaf       INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

CREATE TABLE gateway (
    gateway_id BLOB PRIMARY KEY CHECK (length(gateway_id) = 32),
    name       TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 32 AND name NOT GLOB '*[^A-Za-z0-9_-]*'),
    pop        TEXT NOT NULL CHECK (length(pop) BETWEEN 1 AND 32 AND pop NOT GLOB '*[^A-Za-z0-9_-]*'),
    -- The GatewayRecord inside the authority log's leaf.
    leaf       INTEGER NOT NULL UNIQUE,
    added_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE gateway_shard (
    shard      INTEGER NOT NULL,
    gateway_id BLOB NOT NULL REFERENCES gateway (gateway_id) CHECK (length(gateway_id) = 32),
    PRIMARY KEY (shard, gateway_id)
) STRICT, WITHOUT ROWID;

-- log: 0 the fleet log (an entry is SHA-256(salt || statement)), 1 the authority log (an entry is a proposal).
CREATE TABLE log_entry (
    log   INTEGER NOT NULL CHECK (log IN (0, 1)),
    idx   INTEGER NOT NULL CHECK (idx >= 0),
    entry BLOB NOT NULL CHECK (log = 1 OR length(entry) = 32),
    PRIMARY KEY (log, idx)
) STRICT, WITHOUT ROWID;

-- Hashes of full subtrees: (level, idx) covers leaves idx*2^level .. (idx+1)*2^level. Tiles are ranges of these.
CREATE TABLE log_node (
    log   INTEGER NOT NULL CHECK (log IN (0, 1)),
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 62),
    idx   INTEGER NOT NULL CHECK (idx >= 0),
    hash  BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (log, level, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_head (
    log       INTEGER PRIMARY KEY CHECK (log IN (0, 1)),
    size      INTEGER NOT NULL CHECK (size >= 0),
    stamp     INTEGER NOT NULL,
    -- The signed and cosigned checkpoint.
    statement BLOB NOT NULL
) STRICT;

-- The append-only stream of a shard; an entry points at the lease (0) or revocation (1) with that fleet leaf.
CREATE TABLE shard_entry (
    shard INTEGER NOT NULL,
    seq   INTEGER NOT NULL CHECK (seq >= 0),
    kind  INTEGER NOT NULL CHECK (kind IN (0, 1)),
    leaf  INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (shard, seq)
) STRICT, WITHOUT ROWID;

-- One row for each claim and kind, however often it happens, so that nobody can fill the table.
CREATE TABLE alert (
    kind       TEXT NOT NULL CHECK (kind IN ('claim-spent')),
    claim_pub  BLOB NOT NULL REFERENCES claim (claim_pub) CHECK (length(claim_pub) = 32),
    -- The latest device that was refused.
    devid_hash BLOB NOT NULL CHECK (length(devid_hash) = 32),
    times      INTEGER NOT NULL CHECK (times >= 1),
    first_at   INTEGER NOT NULL,
    last_at    INTEGER NOT NULL,
    PRIMARY KEY (kind, claim_pub)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER log_entry_stays BEFORE UPDATE ON log_entry BEGIN SELECT RAISE(ABORT, 'the log is append only'); END;
CREATE TRIGGER log_entry_kept BEFORE DELETE ON log_entry BEGIN SELECT RAISE(ABORT, 'the log is append only'); END;
CREATE TRIGGER log_node_stays BEFORE UPDATE ON log_node BEGIN SELECT RAISE(ABORT, 'the log is append only'); END;
CREATE TRIGGER log_node_kept BEFORE DELETE ON log_node BEGIN SELECT RAISE(ABORT, 'the log is append only'); END;
CREATE TRIGGER log_head_grows BEFORE UPDATE ON log_head WHEN NEW.size < OLD.size OR NEW.stamp < OLD.stamp
    BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
CREATE TRIGGER shard_entry_stays BEFORE UPDATE ON shard_entry BEGIN SELECT RAISE(ABORT, 'a shard stream is append only'); END;
CREATE TRIGGER shard_entry_kept BEFORE DELETE ON shard_entry BEGIN SELECT RAISE(ABORT, 'a shard stream is append only'); END;
CREATE TRIGGER claim_binds_once BEFORE UPDATE OF devid_hash ON claim
    WHEN OLD.devid_hash IS NOT NULL AND NEW.devid_hash IS NOT OLD.devid_hash
    BEGIN SELECT RAISE(ABORT, 'a claim belongs to the first device that proved it'); END;
CREATE TRIGGER lease_stays BEFORE UPDATE ON lease BEGIN SELECT RAISE(ABORT, 'a lease does not change'); END;
