-- The states of the authority by their epochs: where the statement that made each stands in the authority log.
CREATE TABLE authority_state (
    epoch INTEGER PRIMARY KEY CHECK (epoch >= 1),
    leaf  INTEGER NOT NULL UNIQUE CHECK (leaf >= 0)
) STRICT;
CREATE TRIGGER authority_state_stays BEFORE UPDATE ON authority_state BEGIN SELECT RAISE(ABORT, 'the states of the authority are append only'); END;
CREATE TRIGGER authority_state_kept BEFORE DELETE ON authority_state BEGIN SELECT RAISE(ABORT, 'the states of the authority are append only'); END;
