"""Ids: readable, sortable by the time they were made, and for jobs derivable, so that an id alone gives the path.

Shape: `run_<9 characters of time><10 of randomness>`; a job of that run is `job_<the same 19>_<index>`.
"""

import hashlib
from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread
TIME_CHARACTERS: Final = 9  # 45 bits of milliseconds: until the year 3084
RANDOM_BYTES: Final = 7
RANDOM_CHARACTERS: Final = 10
LEASE_BYTES: Final = 16


def new_id(prefix: str, *, now_ms: int, random: bytes) -> str:
    """`<prefix>_<19 characters>`: 45 bits of time, then 50 of `random` (at least 7 bytes)."""
    return f"{prefix}_{_base32(now_ms, TIME_CHARACTERS)}{_base32(int.from_bytes(random[:7], 'big'), RANDOM_CHARACTERS)}"


def made_at_ms(an_id: str) -> int:
    """The time in an id that `new_id` made, milliseconds; raises `ValueError` for anything else."""
    number = 0
    for character in an_id.rpartition("_")[2][:TIME_CHARACTERS]:
        number = number << 5 | ALPHABET.index(character)
    return number


def job_id(run_id: str, index: int) -> str:
    """The id of the job at `index` (from 0) of a run's plan."""
    return f"job_{run_id.removeprefix('run_')}_{index}"


def run_of(job_id: str) -> str | None:
    """The run of a job, read off its id; None if that is no job id."""
    prefix, _, rest = job_id.partition("_")
    suffix, _, index = rest.rpartition("_")
    if prefix != "job" or not suffix or not index.isdecimal():
        return None
    return f"run_{suffix}"


def lease_token(random: bytes) -> str:
    """A lease id: 128 random bits, hex. It is the fencing token and a secret: store `hashed(token)` only."""
    return random[:LEASE_BYTES].hex()


def hashed(secret: str) -> str:
    """SHA-256 of a high-entropy secret, hex: what is stored instead of the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _base32(number: int, length: int) -> str:
    characters = []
    for _ in range(length):
        characters.append(ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(characters))
