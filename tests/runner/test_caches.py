"""What is kept between jobs on one host."""

import os
from pathlib import Path

import pytest

from deltaci.runner.caches import CacheDir
from protocol.messages import Cache


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Checkout and home of a job."""
    found = {"checkout": tmp_path / "checkout", "home": tmp_path / "home"}
    for path in (*found.values(), tmp_path / "caches"):
        path.mkdir()
    return found


def fill(places: dict[str, Path]) -> None:
    (places["checkout"] / "deps/bin").mkdir(parents=True)
    (places["checkout"] / "deps/lib").write_text("library")
    (places["checkout"] / "deps/bin/tool").symlink_to("../lib")
    (places["checkout"] / "deps/python").symlink_to("/usr/bin/python3")
    os.link(places["checkout"] / "deps/lib", places["checkout"] / "deps/twin")
    (places["home"] / ".pip").mkdir()
    (places["home"] / ".pip/wheel").write_text("wheel")


def empty(places: dict[str, Path]) -> dict[str, Path]:
    found = {name: path.with_name(f"{path.name}-2") for name, path in places.items()}
    for path in found.values():
        path.mkdir()
    return found


def test_a_saved_cache_is_restored_with_its_links(tmp_path: Path, places: dict[str, Path]) -> None:
    """Virtual environments and module trees consist of links, absolute ones among them."""
    caches = CacheDir(tmp_path / "caches", bytes_max=10**9)
    cache = Cache(key="k", paths=("deps", "~/.pip", "missing"))
    fill(places)

    is_new = caches.save("team/app", cache, **places)
    later = empty(places)
    is_hit = caches.restore("team/app", cache, **later)

    assert (is_new, is_hit) == (True, True)
    assert (later["checkout"] / "deps/bin/tool").read_text() == "library"
    assert (later["checkout"] / "deps/twin").read_text() == "library"
    assert (later["checkout"] / "deps/python").readlink() == Path("/usr/bin/python3")
    assert (later["home"] / ".pip/wheel").read_text() == "wheel"


def test_another_key_or_repository_finds_nothing(tmp_path: Path, places: dict[str, Path]) -> None:
    """Equal lock files in two repositories are no reason to share."""
    caches = CacheDir(tmp_path / "caches", bytes_max=10**9)
    fill(places)
    caches.save("team/app", Cache(key="k", paths=("deps",)), **places)

    hits = [
        caches.restore("team/app", Cache(key="other", paths=("deps",)), **empty(places)),
        caches.restore("team/else", Cache(key="k", paths=("deps",)), **places),
    ]

    assert hits == [False, False]


def test_what_exists_is_not_written_again(tmp_path: Path, places: dict[str, Path]) -> None:
    """A key names its content; the second of two equal jobs has nothing to add."""
    caches = CacheDir(tmp_path / "caches", bytes_max=10**9)
    cache = Cache(key="k", paths=("deps",))
    fill(places)

    answers = [caches.save("team/app", cache, **places) for _ in range(2)]

    assert answers == [True, False]


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b", "~/../x", "", "escape"])
def test_a_path_that_leaves_checkout_and_home_is_not_kept(tmp_path: Path, places: dict[str, Path], path: str) -> None:
    """A cache is no way to read the host."""
    (places["checkout"] / "escape").symlink_to(tmp_path)
    caches = CacheDir(tmp_path / "caches", bytes_max=10**9)

    is_new = caches.save("team/app", Cache(key="k", paths=(path,)), **places)

    assert not is_new
    assert list((tmp_path / "caches").iterdir()) == []


def test_a_damaged_cache_is_removed_and_counts_as_none(tmp_path: Path, places: dict[str, Path]) -> None:
    """A job that would fail for ever because of a cut file is worse than one slow job."""
    caches = CacheDir(tmp_path / "caches", bytes_max=10**9)
    cache = Cache(key="k", paths=("deps",))
    fill(places)
    caches.save("team/app", cache, **places)
    (place,) = (tmp_path / "caches").iterdir()
    place.write_bytes(b"no archive")

    is_hit = caches.restore("team/app", cache, **empty(places))

    assert not is_hit
    assert not place.exists()


def test_a_link_of_the_commit_does_not_lead_the_cache_out_of_the_checkout(
    tmp_path: Path, places: dict[str, Path]
) -> None:
    """Nothing is written through the link, and the cache stays for commits without it."""
    caches = CacheDir(tmp_path / "caches", bytes_max=10**9)
    cache = Cache(key="k", paths=("deps",))
    fill(places)
    caches.save("team/app", cache, **places)
    later = empty(places)
    (later["checkout"] / "deps").symlink_to(tmp_path)

    is_hit = caches.restore("team/app", cache, **later)

    assert not is_hit
    assert not (tmp_path / "lib").exists()
    assert len(list((tmp_path / "caches").iterdir())) == 1


def test_the_cache_used_least_recently_goes_first(tmp_path: Path, places: dict[str, Path]) -> None:
    """The disk of a host is finite."""
    fill(places)
    CacheDir(tmp_path / "caches", bytes_max=10**9).save("team/app", Cache(key="used", paths=("deps",)), **places)
    (only,) = (tmp_path / "caches").iterdir()
    caches = CacheDir(tmp_path / "caches", bytes_max=only.stat().st_size * 5 // 2)
    caches.save("team/app", Cache(key="idle", paths=("deps",)), **places)
    for path in (tmp_path / "caches").iterdir():
        os.utime(path, (1, 1))
    later = empty(places)
    caches.restore("team/app", Cache(key="used", paths=("deps",)), **later)

    caches.save("team/app", Cache(key="new", paths=("deps",)), **places)
    left = []
    for key in ("used", "idle", "new"):
        later = empty(later)
        left.append(caches.restore("team/app", Cache(key=key, paths=("deps",)), **later))

    assert left == [True, False, True]
