-- Queries over a database that may be of any older schema: they name only what the first one has.

-- name: every_artifact
-- What lies in files beside the database.
SELECT job_id, attempt, name, size_bytes, sha256 FROM artifact ORDER BY job_id, attempt, name;

-- name: artifact_bytes
-- How large those files are together.
SELECT coalesce(sum(size_bytes), 0) FROM artifact;
