-- A head that is sealed, and that others have yet to cosign before anybody sees it.
CREATE TABLE log_next (
    log       INTEGER PRIMARY KEY CHECK (log IN (0, 1)),
    size      INTEGER NOT NULL CHECK (size >= 0),
    stamp     INTEGER NOT NULL,
    statement BLOB NOT NULL
) STRICT;
CREATE TRIGGER log_next_grows BEFORE UPDATE ON log_next WHEN NEW.size < OLD.size OR NEW.stamp < OLD.stamp
    BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;

-- How a witness, by its key, answered last: up to which size it has cosigned, and what is wrong since when, if anything is.
CREATE TABLE witness (
    log         INTEGER NOT NULL CHECK (log IN (0, 1)),
    witness_pub BLOB NOT NULL CHECK (length(witness_pub) = 32),
    size        INTEGER NOT NULL CHECK (size >= 0),
    cosigned_at INTEGER,
    problem     TEXT CHECK (problem IN ('unreachable', 'unknown-log', 'refused', 'ahead', 'fork', 'bad-answer')),
    problem_at  INTEGER,
    PRIMARY KEY (log, witness_pub)
) STRICT, WITHOUT ROWID;

-- A proposal has no proof before the head over it is published.
CREATE TABLE proposal_5 (
    leaf        INTEGER PRIMARY KEY CHECK (leaf >= 0),
    proposal_id BLOB NOT NULL UNIQUE CHECK (length(proposal_id) = 32),
    proof       BLOB,
    activation  BLOB
) STRICT;
INSERT INTO proposal_5 SELECT leaf, proposal_id, proof, activation FROM proposal;
DROP TABLE proposal;
ALTER TABLE proposal_5 RENAME TO proposal;
