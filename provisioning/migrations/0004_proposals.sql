-- What people proposed, in the authority log: the proof of when it was logged, which is when its delay began; and once it has its
-- effect, its activation, which machines judge for themselves.
CREATE TABLE proposal (
    leaf        INTEGER PRIMARY KEY CHECK (leaf >= 0),
    proposal_id BLOB NOT NULL UNIQUE CHECK (length(proposal_id) = 32),
    proof       BLOB NOT NULL,
    activation  BLOB
) STRICT;
