"""JUnit reports of a job, from the archive that it was kept in: which tests failed, and on which lines. Pure.

Rule: an archive is a stranger's. How much of it is unpacked and read is bounded, no entity of its XML is resolved, and
      a file that cannot be read is left out: what people see of a run never hangs on a report.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from deltaci.forge.checks import Annotation
from deltaci.reporter.annotations import ANNOTATIONS_MAX, annotation, of_lines, place

UNPACKED_BYTES_MAX: Final = 16 * 1024 * 1024
FILES_MAX: Final = 100
TEXT_CHARACTERS_MAX: Final = 64 * 1024
TEXT_LINES_MAX: Final = 400
_UNREADABLE: Final = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, OSError, ValueError)


def failures(archive: bytes, clean: Callable[[bytes], str], *, workdir: str = ".") -> tuple[Annotation, ...]:
    """An annotation for each failed test whose place in the repository is told, in the order of the reports.

    Args:
        archive: a tar.gz with files of XML; others in it are passed over.
        clean: redacts what is shown of it.
        workdir: where the tests ran, relative to the repository.
    """
    found: list[Annotation] = []
    for data in _files(archive):
        try:
            root = fromstring(data, forbid_dtd=True)
        except (ParseError, DefusedXmlException, ValueError, LookupError):
            continue
        for case in root.iter("testcase"):
            one = _of_case(case, clean, workdir)
            if one is not None:
                found.append(one)
            if len(found) == ANNOTATIONS_MAX:
                return tuple(found)
    return tuple(found)


def _files(archive: bytes) -> Iterator[bytes]:
    """Files of XML in the archive, until a bound is reached or it breaks off."""
    room = UNPACKED_BYTES_MAX
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as zipped:
            unpacked = zipped.read(room + 1)[:room]  # a bomb is cut off, and read as far as it got
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as files:
            for number, member in enumerate(files):
                if number == FILES_MAX:
                    return
                if member.isreg() and member.name.lower().endswith(".xml"):
                    content = files.extractfile(member)
                    if content is not None:
                        yield content.read()
    except _UNREADABLE:
        return


def _of_case(case: Element, clean: Callable[[bytes], str], workdir: str) -> Annotation | None:
    problem = next((child for child in case if child.tag in ("failure", "error")), None)
    if problem is None:
        return None
    name = "::".join(part for part in (case.get("classname"), case.get("name")) if part) or "test"
    title = clean(name.encode("utf-8", "replace")).replace("\n", " ")
    text = clean((problem.text or "")[-TEXT_CHARACTERS_MAX:].encode("utf-8", "replace"))
    message = clean((problem.get("message") or "").encode("utf-8", "replace")).strip()
    # The last place of a traceback inside the repository is the nearest to what failed; the attributes that some tools
    # give a test say at best where it begins.
    places = of_lines(text.splitlines()[-TEXT_LINES_MAX:], title=title, workdir=workdir)
    where = (places[-1].path, places[-1].start_line) if places else _told_place(case, workdir)
    if where is None:
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    return annotation(where, message or (lines[-1] if lines else ""), title)


def _told_place(case: Element, workdir: str) -> tuple[str, int] | None:
    file, line = case.get("file"), case.get("line", "")
    if not file or not (line.isascii() and line.isdigit() and len(line) < 9):
        return None
    return place(file, int(line), workdir)
