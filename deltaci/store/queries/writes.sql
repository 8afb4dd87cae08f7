-- Statements of the writer. A conditional one changes exactly one row, or its commit is refused.

-- name: insert_run
-- Conditional. The first revision of a run; no row when its id or its key and attempt exist.
INSERT INTO run (
    id, repo_id, commit_sha, trigger_type, pr_number, attempt, stream, approved_author, state, due_at_ms, revision, snapshot
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: update_run
-- Conditional. The next revision of a run; no row when another one is stored. What makes its key never changes.
UPDATE run SET approved_author = ?, state = ?, due_at_ms = ?, revision = ?, snapshot = ? WHERE id = ? AND revision = ?;

-- name: insert_job
-- Conditional. The first revision of a job.
INSERT INTO job (id, run_id, repo_id, position, concurrency, state, queued_at_ms, due_at_ms, revision, snapshot)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: update_job
-- Conditional. The next revision of a job; no row when another one is stored.
UPDATE job SET state = ?, queued_at_ms = ?, due_at_ms = ?, revision = ?, snapshot = ? WHERE id = ? AND revision = ?;

-- name: grant_job
-- Conditional. The same, and no row either while its run is being canceled or a job of its concurrency group is held.
UPDATE job SET state = ?, queued_at_ms = ?, due_at_ms = ?, revision = ?, snapshot = ? WHERE id = ? AND revision = ?
    AND NOT EXISTS (SELECT 1 FROM run WHERE run.id = job.run_id AND run.state = 'CANCEL_REQUESTED')
    AND NOT EXISTS (
        SELECT 1 FROM job AS holder WHERE holder.repo_id = job.repo_id AND holder.concurrency = job.concurrency
            AND holder.concurrency <> '' AND holder.state IN ('RUNNING', 'CANCEL_REQUESTED')
    );

-- name: insert_planned
-- What a runner will be told to do for a job.
INSERT INTO planned (job_id, planned) VALUES (?, ?);

-- name: insert_need
-- A job waits for another one.
INSERT OR IGNORE INTO need (job_id, need_id) VALUES (?, ?);

-- name: insert_plan
-- Conditional. The plan of a run, once.
INSERT INTO plan (run_id, digest, plan) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- name: insert_journal
-- An event or audit record.
INSERT INTO journal (id, entity_id, run_id, sequence, type, at_ms, cause, data, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: journal_tail
-- Where the chain goes on.
SELECT id, hash FROM journal ORDER BY id DESC LIMIT 1;

-- name: owe
-- A debt, replacing one under the same key: a new generation, due anew, no failed tries.
REPLACE INTO outbox (key, kind, effect, due_at_ms) VALUES (?, ?, ?, ?);

-- name: settle
-- Take out a debt unless it was owed anew.
DELETE FROM outbox WHERE generation = ? AND key = ?;

-- name: postpone
-- A delivery failed.
UPDATE outbox SET tries = tries + 1, due_at_ms = ?, error = ?, is_refused = ? WHERE generation = ? AND key = ?;

-- name: hasten
-- Nothing that may still be delivered waits for longer.
UPDATE outbox SET due_at_ms = ? WHERE is_refused = 0 AND due_at_ms > ?;

-- name: insert_delivery
-- Conditional. A webhook's row in the ledger.
INSERT INTO delivery (
    repo_id, delivery_id, body_sha256, received_at_ms, event, run_id, ignored, is_duplicate, request, outcome
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: act_on_delivery
-- What became of the request of a webhook.
UPDATE delivery SET outcome = ? WHERE repo_id = ? AND delivery_id = ?;

-- name: upsert_pull_request
-- What is known of a pull request.
INSERT INTO pull_request (repo_id, number, is_open, snapshot) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET is_open = excluded.is_open, snapshot = excluded.snapshot;

-- name: upsert_remote_id
-- What the forge calls something of ours.
INSERT INTO remote_id (repo_id, key, remote_id) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET remote_id = excluded.remote_id;

-- name: insert_reply
-- Conditional. The answer to an idempotent request.
INSERT INTO reply (key, request_sha256, http_status, body, at_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: begin_log
-- Conditional. The first chunk of a log; no row when there are bytes already or the log is closed.
INSERT INTO log_state (job_id, attempt, size, is_final, crc32, at_ms) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE
SET size = excluded.size, is_final = excluded.is_final, crc32 = excluded.crc32, at_ms = excluded.at_ms
WHERE log_state.size = 0 AND NOT log_state.is_final;

-- name: extend_log
-- Conditional. A later chunk; no row unless its offset is the stored size and the log is open.
UPDATE log_state SET size = ?, is_final = ?, crc32 = ?, at_ms = ?
WHERE job_id = ? AND attempt = ? AND size = ? AND NOT is_final;

-- name: insert_log_chunk
-- The bytes of a chunk.
INSERT INTO log_chunk (job_id, attempt, start, data) VALUES (?, ?, ?, ?);

-- name: insert_repo
-- Conditional. A repository.
INSERT INTO repo (id, name, is_superseding, snapshot) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: change_repo
-- Conditional. A repository replaced by its next revision; a name that another one has is left alone.
UPDATE OR IGNORE repo SET name = ?, is_superseding = ?, revision = ?, snapshot = ? WHERE id = ? AND revision = ?;

-- name: insert_token
-- Conditional. A bearer token.
INSERT INTO token (id, token_hash, scope, label, created_at_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: upsert_runner
-- Conditional. A runner as it registered last; fails on the pair of token and name when another runner has it.
INSERT INTO runner (id, token_id, name, runner) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET token_id = excluded.token_id, name = excluded.name, runner = excluded.runner;

-- name: upsert_explanation
-- Why an attempt failed.
REPLACE INTO explanation (job_id, attempt, explanation) VALUES (?, ?, ?);

-- name: upsert_reported
-- What the forge was last told.
REPLACE INTO reported (run_id, check_name, digest, at_ms) VALUES (?, ?, ?, ?);

-- name: insert_artifact
-- Conditional. An artifact whose bytes are on disk.
INSERT INTO artifact (job_id, attempt, name, size_bytes, sha256, at_ms) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;
