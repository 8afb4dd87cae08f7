"""The main job: push to a bare repository, see what happens, fix it, push again."""

from pathlib import Path

import pytest

from tests.scenarios.support import attempts_of, running, step, wait_for

pytestmark = pytest.mark.slow


def test_a_push_is_executed_and_reported_and_the_next_one_mends_it(tmp_path: Path) -> None:
    """Everything between `git push` and the result, with nothing faked."""
    jobs = {
        "lint": {"steps": [step("test -f app.sh")]},
        "test": {"needs": ["lint"], "steps": [step("sh app.sh")]},
        "docs": {"paths": ["docs/**"], "steps": [step("echo docs")]},
    }
    with running(tmp_path, slots=2) as (server, project, runner):
        broken = project.configure(jobs, **{"app.sh": "echo 'assertion failed: 1 is not 2' >&2; exit 3\n"})
        first = server.run_until(broken)
        log = server.text_of(next(job["id"] for job in first["jobs"] if job["name"] == "test"))
        mended = project.push({"app.sh": "echo fine\n"}, "Mend it")
        second = server.run_until(mended)
        wait_for(
            "both results", lambda: {one["run_id"] for one in project.reported() if one["is_final"]} >= {broken, mended}
        )
        results = {one["run_id"]: one for one in project.reported() if one["is_final"]}
        shown = server.cli("run", "show", broken)
        server.assert_sound()
        code = runner.stop()

    assert first["run"]["state"] == "FAILED"
    assert first["run"]["end_reason"] == "jobs_failed"
    assert attempts_of(first) == {"lint": [(1, "SUCCEEDED")], "test": [(1, "FAILED")], "docs": [(1, "SUCCEEDED")]}
    assert "assertion failed: 1 is not 2" in log
    assert "assertion failed" in shown
    assert second["run"]["state"] == "SUCCEEDED"
    assert attempts_of(second)["docs"] == []
    assert second["run"]["title"] == "Mend it"
    assert (results[broken]["status"], results[mended]["status"]) == ("failure", "success")
    assert results[broken]["sha"] == first["run"]["commit_sha"]
    assert results[broken]["description"] == "Failed: test"
    assert [job["state"] for job in results[mended]["jobs"]] == ["SUCCEEDED", "SUCCEEDED", "SKIPPED"]
    assert code == 0
