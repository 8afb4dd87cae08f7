"""What a mirror leaves out on purpose, and how that is told from damage.

A fetch may leave out files that are larger than anything a plan reads. Nobody says which ones they were.
Rule 1: a file that is missing was left out if everything that ever came is still here, whole, and nothing of that is
the missing file. If one pack is gone, cut off or changed, whatever is missing is damage.
Rule 2: the note is there before the first fetch that may leave something out; a mirror without one lacks nothing.
"""

import hashlib
import mmap
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

_NAME: Final = "deltaci-left-out.json"
_SHA1_BYTES: Final = 20


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Kept beside the objects of a mirror that may lack files.

    `bytes_min`: of files of so many bytes and more, some may not be here. `packs`: names of all that came, without
    their ending; while they are packed anew, of those alone that were gone before.
    """

    bytes_min: int
    packs: tuple[str, ...] = ()


class NoteInvalid(Exception):
    """There is a note that nobody understands: begin the mirror anew."""


_decoder: Final = msgspec.json.Decoder(Note)


def read_note(directory: Path) -> Note | None:
    """The note of a mirror, None if it lacks nothing. Raises NoteInvalid, and OSError if the disk does."""
    try:
        return _decoder.decode((directory / _NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NoteInvalid(str(error)) from error


def write_note(directory: Path, note: Note | None) -> None:
    """Replace the note, or remove it. A power cut leaves the old one or the new one."""
    place = directory / _NAME
    if note is None:
        place.unlink(missing_ok=True)
        return
    new = place.with_suffix(".new")
    with new.open("wb") as file:
        file.write(msgspec.json.encode(note))
        file.flush()
        os.fsync(file.fileno())
    new.replace(place)


def lacks_more_than(directory: Path, bytes_max: int | None) -> bool:
    """Whether files of at most `bytes_max` may not be here, or with None any file, or nobody can tell."""
    try:
        note = read_note(directory)
    except NoteInvalid:
        return True
    return note is not None and (bytes_max is None or note.bytes_min <= bytes_max)


def packs_here(directory: Path) -> frozenset[str]:
    """The packs that git can read: each with its index, which is the last part of it to come."""
    names = frozenset(path.stem for path in (directory / "objects" / "pack").glob("pack-*.idx"))
    return frozenset(name for name in names if (directory / "objects" / "pack" / f"{name}.pack").exists())


def expect_left_out(directory: Path, bytes_min: int) -> bool:
    """Before a fetch that leaves out files of `bytes_min` and more; the answer is whether it is the first.

    All packs came from the remote; git has to be told of each, also of those from before and after packing: of what is
    in others it would look for all that belongs to it, which takes long and does not find what was left out.
    """
    for name in packs_here(directory):
        (directory / "objects" / "pack" / f"{name}.promisor").touch()
    if read_note(directory) is not None:
        return False
    write_note(directory, Note(bytes_min=bytes_min))
    note_packs(directory)
    return True


def note_packs(directory: Path) -> None:
    """What came by now is whole: from now on it is damage if some of it is gone."""
    note = read_note(directory)
    if note is not None:
        _replace_packs(directory, note, packs_here(directory) | frozenset(note.packs))


def expect_fewer_packs(directory: Path) -> None:
    """Before packing anew: packs will go, and none of those that are here should be missed. See `note_packs`."""
    note = read_note(directory)
    if note is not None:
        _replace_packs(directory, note, frozenset(note.packs) - packs_here(directory))


def _replace_packs(directory: Path, note: Note, packs: frozenset[str]) -> None:
    if packs != frozenset(note.packs):
        write_note(directory, msgspec.structs.replace(note, packs=tuple(sorted(packs))))


def clear_away(directory: Path) -> None:
    """Remove what a fetch that was cut off left: temporary files, and parts of a pack without an index."""
    packs = directory / "objects" / "pack"
    for left in packs.glob("tmp_*"):
        left.unlink(missing_ok=True)
    for part in packs.glob("pack-*"):
        if not part.with_suffix(".idx").exists():
            part.unlink(missing_ok=True)


def why_damaged(directory: Path, note: Note, missing: Collection[str]) -> str | None:
    """Why the objects `missing` were not left out, None if they were. Raises OSError.

    It reads every index and the ends of every pack: milliseconds for each ten thousand objects.
    """
    before = note
    gone = sorted(frozenset(note.packs) - packs_here(directory))
    if gone and (note := read_note(directory) or note) != before:  # packed anew right now: look at what is there then
        gone = sorted(frozenset(note.packs) - packs_here(directory))
    if gone:
        return f"{gone[0]} is gone"
    if any(len(path.name) == 2 for path in (directory / "objects").iterdir()):  # fetches that leave out bring packs
        return "there are objects outside of packs"
    wanted = [bytes.fromhex(sha) for sha in missing]
    packs = directory / "objects" / "pack"
    for name in sorted(packs_here(directory)):
        why = _why_not_whole(packs / f"{name}.idx", packs / f"{name}.pack", wanted)
        if why is not None:
            return why
    return None


def _why_not_whole(index: Path, pack: Path, missing: Collection[bytes]) -> str | None:
    """An index ends with the digest of its pack and that of all before; a pack ends with its own."""
    kind = hashlib.sha1 if all(len(each) == _SHA1_BYTES for each in missing) else hashlib.sha256
    length = kind(usedforsecurity=False).digest_size
    with index.open("rb") as file, pack.open("rb") as packed:
        if os.fstat(file.fileno()).st_size < 2 * length or os.fstat(packed.fileno()).st_size < length:
            return f"{index.stem} is cut off"
        packed.seek(-length, os.SEEK_END)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            with memoryview(data) as whole, whole[:-length] as body:
                digest = kind(body, usedforsecurity=False).digest()
            if digest != data[-length:] or packed.read() != data[-2 * length : -length]:
                return f"{index.stem} is cut off or changed"
            unreadable = next((each for each in missing if data.find(each) >= 0), None)
    return None if unreadable is None else f"{unreadable.hex()} is in {index.stem} and cannot be read"
