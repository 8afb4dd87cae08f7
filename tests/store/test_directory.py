"""Who is at home in a data directory."""

import subprocess
import sys
from pathlib import Path

import pytest

from deltaci.domain.errors import ConfigError
from deltaci.store.directory import MANIFEST_FILE, UNFINISHED, held


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Not there yet."""
    return tmp_path / "data"


def test_one_process_at_a_time_is_at_home(data: Path) -> None:
    """A second server would expire the leases whose holders speak to the first."""
    with held(data), pytest.raises(ConfigError, match=r"another process works on .*data: stop it"), held(data):
        pass

    with held(data):
        pass


HOLD = "import sys; from pathlib import Path; from deltaci.store.directory import held\n"
HOLD += "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


@pytest.mark.slow
def test_a_process_that_is_killed_holds_nothing_any_more(data: Path) -> None:
    """The next start must not wait for anybody to take a file away."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another process"), held(data):
            pass
        other.kill()

    with held(data):
        pass


def test_the_lock_is_the_directorys_and_not_a_files(data: Path) -> None:
    """Somebody who tidies up under a living server must not let a second one in."""
    with held(data):
        for file in data.iterdir():
            file.unlink()

        with pytest.raises(ConfigError, match="another process"), held(data):
            pass


def test_neither_a_backup_nor_half_of_a_restored_one_is_a_home(data: Path) -> None:
    """A server would change the one, and begin a new life in the other."""
    data.mkdir(mode=0o700)
    (data / MANIFEST_FILE).touch()
    with pytest.raises(ConfigError, match=r"is a backup: `deltaci restore --from .*data --data DIR`"), held(data):
        pass
    (data / MANIFEST_FILE).unlink()
    (data / UNFINISHED).mkdir()
    with pytest.raises(ConfigError, match="did not finish: run `deltaci restore` into it again"), held(data):
        pass


def test_a_directory_that_others_can_read_is_refused(data: Path) -> None:
    """It holds secrets; one that is made is closed."""
    with held(data):
        assert data.stat().st_mode & 0o777 == 0o700
    data.chmod(0o750)

    with pytest.raises(ConfigError, match=r"mode 750.*chmod 700"), held(data):
        pass
