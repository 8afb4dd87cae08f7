-- The first schema. `snapshot` columns hold the msgpack of a domain struct and are the truth; the other columns of such
-- a row are derived from it on every save, for queries only.

CREATE TABLE repo (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    is_superseding INTEGER NOT NULL,
    snapshot BLOB NOT NULL
);

CREATE TABLE run (
    id TEXT PRIMARY KEY,
    repo_id TEXT NOT NULL,
    commit_sha TEXT NOT NULL,
    trigger_type TEXT NOT NULL,
    pr_number INTEGER NOT NULL, -- -1 for none: NULLs would all be distinct in the unique key
    attempt INTEGER NOT NULL,
    stream TEXT NOT NULL,
    state TEXT NOT NULL,
    is_live INTEGER GENERATED ALWAYS AS (
        state IN ('CREATED', 'PLANNING', 'QUEUED', 'RUNNING', 'CANCEL_REQUESTED')
    ) VIRTUAL,
    due_at_ms INTEGER, -- the one timer; NULL when final
    revision INTEGER NOT NULL,
    snapshot BLOB NOT NULL,
    UNIQUE (repo_id, commit_sha, trigger_type, pr_number, attempt)
);
CREATE INDEX run_by_state ON run (state, id);
CREATE INDEX run_by_repo ON run (repo_id, id);
CREATE INDEX run_by_stream ON run (repo_id, stream, id) WHERE stream <> '';
CREATE INDEX run_due ON run (due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX run_live ON run (id) WHERE is_live;

CREATE TABLE plan (
    run_id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    plan BLOB NOT NULL
);

CREATE TABLE job (
    id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    repo_id TEXT NOT NULL,
    position INTEGER NOT NULL, -- index in the plan
    state TEXT NOT NULL,
    is_live INTEGER GENERATED ALWAYS AS (
        state IN ('BLOCKED', 'QUEUED', 'RUNNING', 'CANCEL_REQUESTED')
    ) VIRTUAL,
    queued_at_ms INTEGER, -- NULL unless QUEUED
    due_at_ms INTEGER, -- the one timer; NULL when nobody else's silence matters
    revision INTEGER NOT NULL,
    snapshot BLOB NOT NULL
);
CREATE INDEX job_by_run ON job (run_id, position);
CREATE INDEX job_by_state ON job (state, repo_id);
CREATE INDEX job_queued ON job (queued_at_ms, run_id, position) WHERE queued_at_ms IS NOT NULL;
CREATE INDEX job_due ON job (due_at_ms) WHERE due_at_ms IS NOT NULL;

-- What a runner is told to do. Apart from `job`, whose row is rewritten as a whole with every step.
CREATE TABLE planned (
    job_id TEXT PRIMARY KEY,
    planned BLOB NOT NULL
);

CREATE TABLE need (
    job_id TEXT NOT NULL,
    need_id TEXT NOT NULL,
    PRIMARY KEY (job_id, need_id)
) WITHOUT ROWID;

-- Append-only. `id` has no gaps; `hash` chains every row to the one before.
CREATE TABLE journal (
    id INTEGER PRIMARY KEY,
    entity_id TEXT NOT NULL,
    run_id TEXT NOT NULL, -- '' for what belongs to no run
    sequence INTEGER, -- 1..n of a state event of the entity; NULL for an audit record
    type TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    cause BLOB NOT NULL,
    data BLOB NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (entity_id, type, sequence)
);
CREATE INDEX journal_by_run ON journal (run_id) WHERE run_id <> '';

-- What is owed to the world. A generation is never used twice, also not after its row is gone: a late `Settle` of an
-- older debt under the same key must not take out the new one.
CREATE TABLE outbox (
    generation INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    effect BLOB NOT NULL,
    due_at_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    is_refused INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX outbox_due ON outbox (kind, due_at_ms) WHERE is_refused = 0;

-- Kept for ever: a forge may repeat a delivery after days, under the same id.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    repo_id TEXT NOT NULL,
    delivery_id TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    received_at_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    run_id TEXT,
    ignored TEXT,
    is_duplicate INTEGER NOT NULL,
    UNIQUE (repo_id, delivery_id),
    CHECK ((run_id IS NULL) <> (ignored IS NULL))
);
CREATE INDEX delivery_shared ON delivery (run_id) WHERE is_duplicate;
CREATE INDEX delivery_by_digest ON delivery (repo_id, body_sha256) WHERE run_id IS NOT NULL;

CREATE TABLE reply (
    key TEXT PRIMARY KEY,
    request_sha256 TEXT NOT NULL,
    http_status INTEGER NOT NULL,
    body BLOB NOT NULL,
    at_ms INTEGER NOT NULL
);

CREATE TABLE log_state (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    size INTEGER NOT NULL,
    is_final INTEGER NOT NULL,
    crc32 INTEGER,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (job_id, attempt)
) WITHOUT ROWID;

CREATE TABLE log_chunk (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    start INTEGER NOT NULL, -- offset of the first byte
    data BLOB NOT NULL,
    PRIMARY KEY (job_id, attempt, start)
);

CREATE TABLE artifact (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    name TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (job_id, attempt, name)
) WITHOUT ROWID;

CREATE TABLE explanation (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    explanation BLOB NOT NULL,
    PRIMARY KEY (job_id, attempt)
) WITHOUT ROWID;

CREATE TABLE reported (
    run_id TEXT NOT NULL,
    check_name TEXT NOT NULL, -- '' for the run itself
    digest TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (run_id, check_name)
) WITHOUT ROWID;

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    label TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
);

CREATE TABLE runner (
    id TEXT PRIMARY KEY,
    token_id TEXT NOT NULL,
    name TEXT NOT NULL,
    runner BLOB NOT NULL,
    UNIQUE (token_id, name)
);
