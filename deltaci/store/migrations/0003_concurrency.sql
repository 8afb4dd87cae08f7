-- Concurrency groups: of the jobs of a repository with the same `concurrency`, at most one has a live lease. Grants look
-- before they are stored; that two are never there is the index's word, whatever a program forgets.

ALTER TABLE job ADD COLUMN concurrency TEXT NOT NULL DEFAULT ''; -- '' for none

CREATE UNIQUE INDEX job_holding_group ON job (repo_id, concurrency)
WHERE concurrency <> '' AND state IN ('RUNNING', 'CANCEL_REQUESTED');
