"""`deltaci backup` and `deltaci restore`: what they print, and how they end."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deltaci.store.sql import migrations
from tests.scenarios.support import NO_DELTACI, ROOT, cli
from tests.store.support import A_TOKEN, a_data_directory, database_of

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return a_data_directory(tmp_path / "data")


def test_a_person_sees_what_a_backup_holds(data: Path, tmp_path: Path) -> None:
    """At three in the morning "done" is not enough: an empty file is done as well.

    It is verified first: a look that changed a byte of it would make it one that cannot be restored.
    """
    target, second = tmp_path / "backup", tmp_path / "second"

    told = cli("backup", "--data", str(data), "--to", str(target))
    verified = [cli("verify", "--data", str(target)).splitlines()[-1]]
    restored = cli("restore", "--from", str(target), "--data", str(second))
    verified.append(cli("verify", "--data", str(second)).splitlines()[-1])

    manifest = json.loads((target / "backup.json").read_text())
    contents = manifest["contents"]
    lines = told.splitlines()
    assert lines[0] == f"backed up {data} to {target}"
    assert [re.sub(r"\s+", " ", line) for line in lines[1:]] == [
        f"journal {contents['journal_entries']} entries, the last one {contents['journal_hash']}",
        f"runs {contents['runs']}, of which {contents['live_runs']} live",
        f"jobs {contents['jobs']}, of which {contents['live_jobs']} live",
        "artifacts 1 files, 14 bytes",
        f"database {manifest['database']['size_bytes']} bytes, schema version {len(migrations())}",
    ]
    assert restored.splitlines()[0] == f"restored {target} to {second}"
    assert restored.splitlines()[1:6] == lines[1:]
    assert restored.splitlines()[-1].endswith(f"start the server: deltaci serve --data {second}")
    assert verified == ["no violations"] * 2
    assert A_TOKEN.strip() not in told + restored


def test_a_backup_that_lacks_something_says_so_and_ends_with_1(data: Path, tmp_path: Path) -> None:
    """It is kept, and whoever reads the mail of cron looks after the artifacts."""
    (artifact,) = (data / "artifacts").rglob("shop")
    artifact.unlink()

    told = cli("backup", "--data", str(data), "--to", str(tmp_path / "backup"), code=1)

    assert "1 artifacts are damaged or gone in the original, and not in the backup:" in told
    assert str(artifact.relative_to(data / "artifacts")) in told
    cli("restore", "--from", str(tmp_path / "backup"), "--data", str(tmp_path / "second"))


def test_damaged_artifacts_are_left_out_when_asked(data: Path, tmp_path: Path) -> None:
    """And named, so that somebody can look for them elsewhere."""
    backup = tmp_path / "backup"
    cli("backup", "--data", str(data), "--to", str(backup))
    (artifact,) = (backup / "artifacts").rglob("shop")
    artifact.write_bytes(b"spoilt")
    words = ("restore", "--from", str(backup), "--data", str(tmp_path / "second"))

    refused = cli(*words, code=1)
    told = cli(*words, "--leave-out-damaged")

    assert refused.startswith("Error: 1 artifacts of the backup are damaged")
    assert "1 artifacts are damaged in the backup, and were left out:" in told
    assert str(artifact.relative_to(backup / "artifacts")) in told


def test_every_command_refuses_a_database_of_a_newer_program(data: Path, tmp_path: Path) -> None:
    """One sentence, exit code 1, and not one byte changed: it is the newer program's."""
    backup = tmp_path / "backup"
    cli("backup", "--data", str(data), "--to", str(backup))
    with database_of(data) as connection:
        connection.execute("PRAGMA user_version = 999")
    manifest = json.loads((backup / "backup.json").read_text())
    manifest["contents"]["schema_version"] = 999
    (backup / "backup.json").write_text(json.dumps(manifest))
    before = [digests(data), digests(backup)]

    told = [
        cli("serve", "--data", str(data), "--port", "0", code=1),
        cli("verify", "--data", str(data), code=1),
        cli("backup", "--data", str(data), "--to", str(tmp_path / "second"), code=1),
        cli("restore", "--from", str(backup), "--data", str(tmp_path / "third"), code=1),
    ]

    says = f"has schema version 999, this program knows {len(migrations())}: use the newer program, or restore a backup"
    for text in told:
        assert re.fullmatch(rf"Error: the (database|backup) \S+ {says} that this one made\n", text)
    assert [digests(data), digests(backup)] == before
    assert not (tmp_path / "second").exists()
    assert not (tmp_path / "third").exists()


def digests(root: Path) -> dict[str, str]:
    """Every file below `root`, by its bytes."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


INTERRUPTED = """
import os, signal, sys
from deltaci.cli import main
from deltaci.store import backup, restore
for module in (backup, restore):
    # Who runs in the background of a shell has inherited that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module.sync_tree = lambda _: os.kill(os.getpid(), getattr(signal, sys.argv[1]))
main(sys.argv[2:])
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_one_that_is_stopped_leaves_nothing(data: Path, tmp_path: Path, name: str) -> None:
    """By Ctrl-C, or by a service manager that lost its patience."""
    target, second = tmp_path / "backup", tmp_path / "second"

    def interrupted(*words: str) -> int:
        command = [sys.executable, "-c", INTERRUPTED, name, *words]
        return subprocess.run(
            command, cwd=ROOT, env=NO_DELTACI, capture_output=True, check=False, timeout=60
        ).returncode

    codes = [interrupted("backup", "--data", str(data), "--to", str(target))]
    left = sorted(path.name for path in tmp_path.iterdir())
    cli("backup", "--data", str(data), "--to", str(target))
    codes.append(interrupted("restore", "--from", str(target), "--data", str(second)))

    assert codes == [143 if name == "SIGTERM" else 1] * 2
    assert left == ["data"]
    assert not second.exists()
