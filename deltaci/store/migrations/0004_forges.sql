-- Forges: what a webhook asks for besides a run, pull requests as they were told last, what forges call what is ours.

-- A repository may change: its name, its secrets, whether it is ours to build.
ALTER TABLE repo ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;

-- SQLite cannot change the check of a table: the ledger is copied into a new one, row by row, under the same ids.
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY,
    repo_id TEXT NOT NULL, -- '' for what is about no repository
    delivery_id TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    received_at_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    run_id TEXT,
    ignored TEXT,
    is_duplicate INTEGER NOT NULL,
    request BLOB, -- msgpack of the domain struct
    outcome TEXT, -- NULL as long as it is owed
    UNIQUE (repo_id, delivery_id),
    CHECK ((run_id IS NOT NULL) + (ignored IS NOT NULL) + (request IS NOT NULL) = 1)
);
INSERT INTO ledger SELECT *, NULL, NULL FROM delivery;
DROP TABLE delivery;
ALTER TABLE ledger RENAME TO delivery;
CREATE INDEX delivery_shared ON delivery (run_id) WHERE is_duplicate;
CREATE INDEX delivery_by_digest ON delivery (repo_id, body_sha256) WHERE ignored IS NULL;
CREATE INDEX delivery_by_repo ON delivery (repo_id, id);
CREATE INDEX delivery_by_id ON delivery (delivery_id);

CREATE TABLE pull_request (
    repo_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    snapshot BLOB NOT NULL,
    PRIMARY KEY (repo_id, number)
) WITHOUT ROWID;
CREATE INDEX pull_request_open ON pull_request (repo_id, number) WHERE is_open;

-- The author of a run that somebody approved, '' for any other: a first-time contributor is one who has none.
ALTER TABLE run ADD COLUMN approved_author TEXT NOT NULL DEFAULT '';
CREATE INDEX run_by_approved_author ON run (repo_id, approved_author) WHERE approved_author <> '';

CREATE TABLE remote_id (
    repo_id TEXT NOT NULL,
    key TEXT NOT NULL,
    remote_id TEXT NOT NULL,
    PRIMARY KEY (repo_id, key)
) WITHOUT ROWID;
