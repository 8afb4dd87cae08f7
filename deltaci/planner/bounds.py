"""What planning may use. Each is a setting of the table `[planner]`."""

from typing import Literal

import msgspec

from deltaci.forge.local import MirrorLimits


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of planning; durations in milliseconds, sizes in bytes.

    `workers_max`: processes that plan at once, and never more than there are processors. `memory_bytes_max`: the
    address space of each of them and of each git that it starts. A plan of 100,000 files with 2,000 projects takes 0.1
    GiB, one of a million files 0.6; git needs room to map the indexes of large packs.
    `cache_bytes_max`: what each keeps of the commits that it planned last. `fetch_bytes_max`: what one fetch may bring.
    `fetch`: `partial` leaves files of more than 8 MiB out, which no plan reads, where the forge can do that; `whole`
    brings all there is.
    `source`: `clone` reads a mirror; `api` asks the forge for the files of a commit as long as there is no mirror of
    the repository; for one plan it waits for `api_ms` in all and reads at most `api_files_max` contents, of
    `api_bytes_max` in all. What the API does not tell is read from a clone after all.
    """

    source: Literal["clone", "api"] = "clone"
    fetch: Literal["partial", "whole"] = "partial"
    workers_max: int = 2
    plan_ms: int = 30_000
    memory_bytes_max: int = 2 * 1024**3
    cache_bytes_max: int = 256 * 1024**2
    fetch_bytes_max: int = 8 * 1024**3
    entries_max: int = 1_000_000
    changes_max: int = 50_000
    api_ms: int = 30_000
    api_files_max: int = 300
    api_bytes_max: int = 32 * 1024**2

    def of_mirrors(self) -> MirrorLimits:
        """The part that concerns fetching and reading. One git may take as long as the whole plan."""
        return MirrorLimits(
            fetch_bytes_max=self.fetch_bytes_max,
            is_partial=self.fetch == "partial",
            read_ms=max(self.plan_ms, MirrorLimits().read_ms),
            entries_max=self.entries_max,
            changes_max=self.changes_max,
        )
