-- What gateways and devices say to each other through this server about pre-shared keys. Neither is secret, both are
-- signed by who says it; nothing here lets this server know or choose a key.

CREATE TABLE kem_statement (
    gateway_id BLOB PRIMARY KEY REFERENCES gateway (gateway_id) CHECK (length(gateway_id) = 32),
    statement  BLOB NOT NULL,
    not_after  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The latest offer of a device to a gateway. It stands in its shard's stream among the entries of shard_entry, and
-- leaves that place when another one takes over: a gateway that was away needs only the latest.
CREATE TABLE psk_offer (
    gateway_id BLOB NOT NULL REFERENCES gateway (gateway_id) CHECK (length(gateway_id) = 32),
    devid_hash BLOB NOT NULL REFERENCES device (devid_hash) CHECK (length(devid_hash) = 32),
    shard      INTEGER NOT NULL,
    seq        INTEGER NOT NULL CHECK (seq >= 0),
    statement  BLOB NOT NULL,
    PRIMARY KEY (gateway_id, devid_hash),
    UNIQUE (shard, seq)
) STRICT, WITHOUT ROWID;
