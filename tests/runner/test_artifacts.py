"""Which files are kept, and that nothing outside of the checkout is among them."""

import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from deltaci.runner.artifacts import ArtifactTooLarge, pack, select_files
from protocol.messages import Artifact


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout beside a secret."""
    root = tmp_path / "checkout"
    for name in ("dist/a.txt", "dist/sub/b.txt", "dist/.hidden", "src/c.py", ".git/config"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (tmp_path / "secret").write_text("hush-hush")
    return root


def select(checkout: Path, *paths: str) -> tuple[str, ...]:
    return select_files(checkout, Artifact(name="out", paths=paths)).files


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("dist/*.txt",), ("dist/a.txt",)),
        (("dist",), ("dist/.hidden", "dist/a.txt", "dist/sub/b.txt")),
        (("dist/",), ("dist/.hidden", "dist/a.txt", "dist/sub/b.txt")),
        (("dist/**/*.txt",), ("dist/a.txt", "dist/sub/b.txt")),
        (("src/c.py", "src/*", "src"), ("src/c.py",)),
        ((".",), ("dist/.hidden", "dist/a.txt", "dist/sub/b.txt", "src/c.py")),
        (("nothing/*",), ()),
    ],
)
def test_globs_are_relative_to_the_checkout(checkout: Path, patterns: tuple[str, ...], expected: tuple[str]) -> None:
    """Each file once, sorted; a directory stands for all that is in it, the repository's own data aside."""
    assert select(checkout, *patterns) == expected


@pytest.mark.parametrize("pattern", ["../secret", "dist/../../secret", "/etc/passwd", "", "a\0b"])
def test_a_pattern_that_leaves_the_checkout_is_refused_with_a_word(checkout: Path, pattern: str) -> None:
    """Refused, not ignored: the user sees in the log why the artifact is empty."""
    selection = select_files(checkout, Artifact(name="out", paths=(pattern,)))

    assert selection.files == ()
    assert len(selection.refused) == 1


def test_links_that_lead_out_of_the_checkout_are_refused(checkout: Path) -> None:
    """An artifact must not become a way to read the host: by file, by directory, by absolute or relative link."""
    (checkout / "dist/absolute").symlink_to(checkout.parent / "secret")
    (checkout / "dist/relative").symlink_to("../../secret")
    (checkout / "dist/up").symlink_to("../..")
    (checkout / "dist/broken").symlink_to("nowhere")
    (checkout / "dist/loop").symlink_to("loop")

    direct = select_files(checkout, Artifact(name="out", paths=("dist/up/secret", "dist/up/*", "dist/*/secret")))
    below = select_files(checkout, Artifact(name="out", paths=("dist",)))

    assert "secret" not in "".join(direct.files)
    assert below.files == ("dist/.hidden", "dist/a.txt", "dist/sub/b.txt")
    assert len(below.refused) == 5


def test_a_link_within_the_checkout_is_packed_as_the_file_it_names(checkout: Path, tmp_path: Path) -> None:
    """Whoever unpacks the archive elsewhere gets the content; archives hold no links at all."""
    (checkout / "dist/latest").symlink_to("a.txt")
    os.link(checkout / "dist/a.txt", checkout / "dist/second-name")
    target = tmp_path / "out.tar.gz"

    pack(checkout, select(checkout, "dist"), target, bytes_max=10**6)

    with tarfile.open(target) as archive:
        assert all(member.isreg() for member in archive)
        kept = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert kept["dist/latest"] == kept["dist/second-name"] == b"dist/a.txt"


def test_what_is_no_regular_file_is_refused(checkout: Path) -> None:
    """Reading a pipe would wait for ever."""
    os.mkfifo(checkout / "dist/pipe")

    selection = select_files(checkout, Artifact(name="out", paths=("dist/pipe",)))

    assert selection.files == ()
    assert selection.refused == ("'dist/pipe' is no regular file",)


def test_equal_files_give_equal_archives(checkout: Path, tmp_path: Path) -> None:
    """A repeated upload is recognised by its checksum."""
    files = select(checkout, "dist")

    sums = [pack(checkout, files, tmp_path / f"{number}", bytes_max=10**6) for number in (1, 2)]

    assert sums[0] == sums[1] == hashlib.sha256((tmp_path / "1").read_bytes()).hexdigest()


def test_the_limit_is_met_and_not_passed(checkout: Path, tmp_path: Path) -> None:
    """At the limit it is kept, one past it nothing is left on the disk."""
    files = select(checkout, "dist")
    pack(checkout, files, tmp_path / "probe", bytes_max=10**6)
    size = (tmp_path / "probe").stat().st_size

    pack(checkout, files, tmp_path / "fits", bytes_max=size)
    with pytest.raises(ArtifactTooLarge):
        pack(checkout, files, tmp_path / "too-large", bytes_max=size - 1)

    assert (tmp_path / "fits").stat().st_size == size
    assert not (tmp_path / "too-large").exists()
