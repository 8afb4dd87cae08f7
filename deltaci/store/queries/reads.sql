-- Queries of the readers.

-- name: load_run
-- A run.
SELECT snapshot FROM run WHERE id = ?;

-- name: load_job
-- A job and what a runner is told to do for it.
SELECT job.snapshot, planned.planned FROM job JOIN planned ON planned.job_id = job.id WHERE job.id = ?;

-- name: load_plan
-- The plan of a run.
SELECT plan FROM plan WHERE run_id = ?;

-- name: jobs_of_run
-- The jobs of a run in the order of its plan.
SELECT id, snapshot FROM job WHERE run_id = ? ORDER BY position, rowid;

-- name: latest_run
-- The newest run attempt under a key.
SELECT id, snapshot FROM run
WHERE repo_id = ? AND commit_sha = ? AND trigger_type = ? AND pr_number = ?
ORDER BY attempt DESC LIMIT 1;

-- name: is_author_approved
-- Whether a run of an author was ever approved in a repository.
SELECT 1 FROM run WHERE repo_id = ? AND approved_author = ? AND approved_author <> '' LIMIT 1;

-- name: list_runs
-- A page of all runs, newest first.
SELECT run.id, run.snapshot, coalesce(repo.name, '') FROM run LEFT JOIN repo ON repo.id = run.repo_id
WHERE run.id < :before ORDER BY run.id DESC LIMIT :limit;

-- name: list_runs_of_repo
-- A page of a repository's runs, newest first.
SELECT run.id, run.snapshot, coalesce(repo.name, '') FROM run LEFT JOIN repo ON repo.id = run.repo_id
WHERE run.repo_id = :repo_id AND run.id < :before ORDER BY run.id DESC LIMIT :limit;

-- name: list_runs_in_state
-- A page of the runs in a state, newest first.
SELECT run.id, run.snapshot, coalesce(repo.name, '') FROM run LEFT JOIN repo ON repo.id = run.repo_id
WHERE run.state = :state AND run.id < :before ORDER BY run.id DESC LIMIT :limit;

-- name: list_runs_of_repo_in_state
-- A page of a repository's runs in a state, newest first.
SELECT run.id, run.snapshot, coalesce(repo.name, '') FROM run LEFT JOIN repo ON repo.id = run.repo_id
WHERE run.repo_id = :repo_id AND run.state = :state AND run.id < :before ORDER BY run.id DESC LIMIT :limit;

-- name: queued_jobs
-- All queued jobs, in order of queueing.
SELECT id, snapshot FROM job WHERE queued_at_ms IS NOT NULL ORDER BY queued_at_ms, run_id, position;

-- name: held_jobs
-- Jobs with a live lease, with their repositories and concurrency groups.
SELECT id, repo_id, concurrency FROM job WHERE state IN ('RUNNING', 'CANCEL_REQUESTED') ORDER BY id;

-- name: holder_of_group
-- The job of a concurrency group that has a live lease.
SELECT id FROM job
WHERE repo_id = ? AND concurrency = ? AND concurrency <> '' AND state IN ('RUNNING', 'CANCEL_REQUESTED');

-- name: due
-- Runs and jobs whose timer has run out, the earliest first.
SELECT id FROM (
    SELECT id, due_at_ms FROM (
        SELECT id, due_at_ms FROM run WHERE due_at_ms <= :now_ms ORDER BY due_at_ms, id LIMIT :limit
    )
    UNION ALL
    SELECT id, due_at_ms FROM (
        SELECT id, due_at_ms FROM job WHERE due_at_ms <= :now_ms ORDER BY due_at_ms, id LIMIT :limit
    )
)
ORDER BY due_at_ms, id LIMIT :limit;

-- name: runs_to_advance
-- Live runs that missed a wake-up: all jobs final; a blocked job whose needs are all final; a job that moved while the
-- run is still QUEUED; a cancel that did not reach a job.
SELECT id FROM run WHERE is_live AND (
    (
        EXISTS (SELECT 1 FROM job WHERE job.run_id = run.id)
        AND NOT EXISTS (SELECT 1 FROM job WHERE job.run_id = run.id AND job.is_live)
    )
    OR EXISTS (
        SELECT 1 FROM job WHERE job.run_id = run.id AND job.state = 'BLOCKED' AND NOT EXISTS (
            SELECT 1 FROM need JOIN job AS needed ON needed.id = need.need_id
            WHERE need.job_id = job.id AND needed.is_live
        )
    )
    OR (
        state = 'QUEUED' AND EXISTS (
            SELECT 1 FROM job
            WHERE job.run_id = run.id AND job.state IN ('RUNNING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT')
        )
    )
    OR (
        state = 'CANCEL_REQUESTED' AND EXISTS (
            SELECT 1 FROM job
            WHERE job.run_id = run.id AND job.is_live AND job.state <> 'CANCEL_REQUESTED'
        )
    )
)
ORDER BY id LIMIT ?;

-- name: superseded_runs
-- Live runs without a requested cancel that have a newer run of the same stream, with the newest one. A run that another
-- delivery found as well is left alone: the same commit may be the head of a second branch. Not so of a pull request,
-- whose number is part of the run's key.
SELECT older.id, max(newer.id)
FROM run AS older
JOIN repo ON repo.id = older.repo_id AND repo.is_superseding
JOIN run AS newer ON newer.repo_id = older.repo_id AND newer.stream = older.stream
    AND newer.stream <> '' AND newer.id > older.id
WHERE older.is_live AND older.state <> 'CANCEL_REQUESTED' AND older.stream <> ''
    AND (older.pr_number <> -1 OR NOT EXISTS (
        SELECT 1 FROM delivery WHERE delivery.run_id = older.id AND delivery.is_duplicate
    ))
GROUP BY older.id ORDER BY older.id LIMIT ?;

-- name: live_runs_of_stream
-- Runs of a stream that have not ended and, unless of a pull request, that no other delivery found, oldest first.
SELECT id FROM run WHERE repo_id = ? AND stream = ? AND is_live
    AND (pr_number <> -1 OR NOT EXISTS (
        SELECT 1 FROM delivery WHERE delivery.run_id = run.id AND delivery.is_duplicate
    ))
ORDER BY id;

-- name: live_runs_of_pull_request
-- Runs of a pull request that have not ended, oldest first; also those of an old head that somebody ran again.
SELECT id FROM run WHERE repo_id = ? AND pr_number = ? AND is_live ORDER BY id;

-- name: live_runs_of_repo
-- Runs of a repository that have not ended, oldest first.
SELECT id FROM run WHERE repo_id = ? AND is_live ORDER BY id;

-- name: newest_runs_of_commit
-- The newest attempt under each key of a commit, oldest first. SQLite takes the other columns from the row of the max.
SELECT id, snapshot, max(attempt) FROM run WHERE repo_id = ? AND commit_sha = ?
GROUP BY trigger_type, pr_number ORDER BY id;

-- name: run_before
-- The newest run of the stream of a run that is older and ended by itself.
SELECT before.id FROM run
JOIN run AS before ON before.repo_id = run.repo_id AND before.stream = run.stream AND before.stream <> ''
    AND before.id < run.id AND before.state IN ('SUCCEEDED', 'FAILED', 'TIMED_OUT')
WHERE run.id = ? ORDER BY before.id DESC LIMIT 1;

-- name: delivery
-- A webhook by its id.
SELECT repo_id, delivery_id, body_sha256, received_at_ms, event, run_id, ignored, is_duplicate, request, outcome
FROM delivery
WHERE repo_id = ? AND delivery_id = ?;

-- name: delivery_by_digest
-- The first webhook with this content that made or found a run, or asked for something.
SELECT repo_id, delivery_id, body_sha256, received_at_ms, event, run_id, ignored, is_duplicate, request, outcome
FROM delivery
WHERE repo_id = ? AND body_sha256 = ? AND ignored IS NULL ORDER BY id LIMIT 1;

-- name: newest_deliveries
-- A page of the ledger, newest first.
SELECT repo_id, delivery_id, body_sha256, received_at_ms, event, run_id, ignored, is_duplicate, request, outcome, id
FROM delivery
WHERE id < :before ORDER BY id DESC LIMIT :limit;

-- name: newest_deliveries_of_repo
-- A page of a repository's ledger, newest first.
SELECT repo_id, delivery_id, body_sha256, received_at_ms, event, run_id, ignored, is_duplicate, request, outcome, id
FROM delivery
WHERE repo_id = :repo_id AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: pull_request
-- A pull request.
SELECT number, snapshot FROM pull_request WHERE repo_id = ? AND number = ?;

-- name: open_pull_requests
-- Those of a repository that are open as far as we know, by number.
SELECT number, snapshot FROM pull_request WHERE repo_id = ? AND is_open ORDER BY number;

-- name: known_deliveries
-- Which of the ids in a JSON list are in the ledger.
SELECT DISTINCT delivery_id FROM delivery WHERE delivery_id IN (SELECT value FROM json_each(?));

-- name: remote_ids
-- What the forge calls things of ours, keys from one to another; what was taken back is empty.
SELECT key, remote_id FROM remote_id WHERE repo_id = ? AND key >= ? AND key < ? AND remote_id <> '';

-- name: remote_id
-- What the forge calls something of ours.
SELECT remote_id FROM remote_id WHERE repo_id = ? AND key = ?;

-- name: reply
-- The answer given to an idempotent request.
SELECT key, request_sha256, http_status, body, at_ms FROM reply WHERE key = ?;

-- name: owed
-- Debts of one kind that are due and not refused, the earliest first.
SELECT key, effect, generation, due_at_ms, tries, error, is_refused FROM outbox
WHERE is_refused = 0 AND kind = ? AND due_at_ms <= ? ORDER BY due_at_ms, generation LIMIT ?;

-- name: debt
-- One debt, refused or not.
SELECT key, effect, generation, due_at_ms, tries, error, is_refused FROM outbox WHERE key = ?;

-- name: next_owed_at_ms
-- When the next debt becomes due.
SELECT min(due_at_ms) FROM outbox WHERE is_refused = 0;

-- name: events_of_run
-- Journal of a run and its jobs, in order.
SELECT id, entity_id, run_id, sequence, type, at_ms, cause, data, hash FROM journal
WHERE run_id = ? AND run_id <> '' AND id > ? ORDER BY id LIMIT ?;

-- name: journal
-- A page of the whole journal.
SELECT id, entity_id, run_id, sequence, type, at_ms, cause, data, hash FROM journal WHERE id > ? ORDER BY id LIMIT ?;

-- name: log_state
-- How far a log is stored.
SELECT size, is_final, crc32 FROM log_state WHERE job_id = ? AND attempt = ?;

-- name: read_log
-- The chunks that hold bytes from `first` to before `end`.
SELECT start, data FROM log_chunk
WHERE job_id = :job_id AND attempt = :attempt AND start < :end AND start >= coalesce(
    (
        SELECT max(start) FROM log_chunk
        WHERE job_id = :job_id AND attempt = :attempt AND start <= :first
    ),
    0
)
ORDER BY start;

-- name: artifacts_of_run
-- Artifacts of a run's jobs in the order of its plan.
SELECT artifact.job_id, artifact.attempt, artifact.name, artifact.size_bytes, artifact.sha256, artifact.at_ms
FROM job JOIN artifact ON artifact.job_id = job.id
WHERE job.run_id = ? ORDER BY job.position, job.rowid, artifact.attempt, artifact.name;

-- name: explanations_of_run
-- Explanations of a run's attempts in the order of its plan.
SELECT explanation.job_id, explanation.explanation FROM job JOIN explanation ON explanation.job_id = job.id
WHERE job.run_id = ? ORDER BY job.position, job.rowid, explanation.attempt;

-- name: reported
-- What the forge was last told about a run.
SELECT check_name, digest FROM reported WHERE run_id = ? ORDER BY check_name;

-- name: repos
-- All repositories by name.
SELECT id, snapshot FROM repo ORDER BY name;

-- name: load_repo
-- A repository.
SELECT id, snapshot FROM repo WHERE id = ?;

-- name: token
-- A token by its hash.
SELECT id, token_hash, scope, label, created_at_ms FROM token WHERE token_hash = ?;

-- name: runner
-- A runner.
SELECT id, runner FROM runner WHERE id = ?;

-- name: runner_by_name
-- A runner of a token.
SELECT id, runner FROM runner WHERE token_id = ? AND name = ?;

-- name: runners
-- All runners by name.
SELECT id, runner FROM runner ORDER BY name, id;

-- name: count_runs
-- Runs by state.
SELECT state, count(*) FROM run GROUP BY state;

-- name: count_jobs
-- Jobs by state.
SELECT state, count(*) FROM job GROUP BY state;

-- name: count_outbox
-- Debts, by whether they were refused.
SELECT CASE is_refused WHEN 0 THEN 'owed' ELSE 'refused' END, count(*) FROM outbox GROUP BY is_refused;

-- name: newest_at_ms
-- The newest instant of the journal. Its entries are in order of time but for those that were decided at the same time.
SELECT coalesce(max(at_ms), 0) FROM (SELECT at_ms FROM journal ORDER BY id DESC LIMIT ?);

-- name: count_journal
-- Entries of the journal: its ids have no gaps.
SELECT coalesce(max(id), 0) FROM journal;

-- name: run_ids
-- A page of the ids of all runs.
SELECT id FROM run WHERE id > ? ORDER BY id LIMIT ?;

-- name: row_of_run
-- All columns of a run, whether its repository is told results, and the cause of its first event.
SELECT run.snapshot, run.state, run.revision, run.due_at_ms,
    run.repo_id, run.commit_sha, run.trigger_type, run.pr_number, run.attempt, run.stream, repo.snapshot,
    (SELECT cause FROM journal WHERE entity_id = run.id AND type = 'RunCreated' AND sequence = 1),
    run.approved_author
FROM run LEFT JOIN repo ON repo.id = run.repo_id WHERE run.id = ?;

-- name: job_rows_of_run
-- All columns of a run's jobs in the order of its plan, with what a runner is told to do.
SELECT job.id, job.snapshot, job.state, job.revision, job.due_at_ms, job.queued_at_ms, job.concurrency,
    planned.planned
FROM job LEFT JOIN planned ON planned.job_id = job.id WHERE job.run_id = ? ORDER BY job.position, job.rowid;

-- name: needs_of_run
-- Which job of a run waits for which.
SELECT need.job_id, need.need_id FROM job JOIN need ON need.job_id = job.id WHERE job.run_id = ?
ORDER BY need.job_id, need.need_id;

-- name: plan_row
-- The plan of a run with its digest.
SELECT digest, plan FROM plan WHERE run_id = ?;

-- name: shared_deliveries
-- The webhooks that found a run that was there already, in order of arrival.
SELECT repo_id, delivery_id, body_sha256, received_at_ms, event, run_id, ignored, is_duplicate, request, outcome
FROM delivery
WHERE run_id = ? AND is_duplicate ORDER BY id;

-- name: owed_of_run
-- Debts of a run and of its jobs' attempts; a job's keys are those between the colons after its id.
SELECT key, effect, generation, due_at_ms, tries, error, is_refused FROM outbox
WHERE key IN (
    'plan:' || :run_id, 'report:' || :run_id, 'recipe:' || :run_id, 'cancel:' || :run_id, 'notify:' || :run_id
)
UNION ALL
SELECT outbox.key, outbox.effect, outbox.generation, outbox.due_at_ms, outbox.tries, outbox.error, outbox.is_refused
FROM job JOIN outbox ON outbox.key > 'analyze:' || job.id || ':' AND outbox.key < 'analyze:' || job.id || ';'
WHERE job.run_id = :run_id
ORDER BY generation;

-- name: log_states_of_run
-- How far the logs of a run are stored.
SELECT log_state.job_id, log_state.attempt, log_state.size, log_state.is_final, log_state.crc32
FROM job JOIN log_state ON log_state.job_id = job.id WHERE job.run_id = ?;

-- name: log_chunks_of_run
-- Where the chunks of a run's logs lie.
SELECT log_chunk.job_id, log_chunk.attempt, log_chunk.start, length(log_chunk.data)
FROM job JOIN log_chunk ON log_chunk.job_id = job.id WHERE job.run_id = ?
ORDER BY log_chunk.job_id, log_chunk.attempt, log_chunk.start;

-- name: deliveries
-- A page of the ledger of webhooks, in order of arrival.
SELECT repo_id, delivery_id, body_sha256, received_at_ms, event, run_id, ignored, is_duplicate, request, outcome, id
FROM delivery
WHERE id > ? ORDER BY id LIMIT ?;

-- name: outbox
-- Everything owed.
SELECT key, effect, generation, due_at_ms, tries, error, is_refused FROM outbox ORDER BY generation;
