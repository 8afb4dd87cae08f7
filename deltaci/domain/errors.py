"""The errors of the house. An exception is a bug, a broken dependency or a broken rule; a normal "no" is a `Refusal`.

The text says what was asked, in which state, for which id, and what to do next. Wrap with `raise ... from`.
"""

from typing import ClassVar


class DeltaError(Exception):
    """Base of all errors raised on purpose; carries what an edge needs to answer."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    is_retryable: ClassVar[bool] = False

    def __init__(self, text: str = "", *, retry_after_ms: int | None = None, **details: str) -> None:
        super().__init__(text or (type(self).__doc__ or "").splitlines()[0])
        self.details = details
        self.retry_after_ms = retry_after_ms


class ConfigError(DeltaError):
    """A setting or a repository's configuration is not valid."""

    code = "config_invalid"
    http_status = 422


class NotFound(DeltaError):
    """Nothing with that id is known, or it is not visible with these rights."""

    code = "not_found"
    http_status = 404


class ProtocolError(DeltaError):
    """A peer broke the rules."""

    code = "protocol"
    http_status = 400


class MalformedRequest(ProtocolError):
    """The bytes are not what this address accepts."""

    code = "malformed"


class BadSignature(ProtocolError):
    """The signature is missing or does not match the body."""

    code = "bad_signature"
    http_status = 401


class DeliveryReused(ProtocolError):
    """The delivery id was used before with another body."""

    code = "delivery_reused"
    http_status = 409


class StoreError(DeltaError):
    """The store could not do what was asked."""

    code = "store"
    http_status = 503
    is_retryable = True


class RevisionConflict(StoreError):
    """Another writer stored this entity first: reload and decide again."""

    code = "revision_conflict"


class GrantKeptOut(RevisionConflict):
    """A lease may not be stored: its run is being canceled, its group is held, or another writer was first."""

    code = "grant_kept_out"


class DuplicateKey(StoreError):
    """A row that must be unique exists already: read it and answer with what it says."""

    code = "duplicate_key"

    def __init__(self, text: str = "", *, table: str = "") -> None:
        super().__init__(text, table=table)
        self.table = table


class StoreUnavailable(StoreError):
    """The store does not answer; it is unknown what was written."""

    code = "store_unavailable"


class StorageFull(StoreError):
    """The last space on the disk is kept for state: nothing was stored; send it again later."""

    code = "storage_full"
    http_status = 507


class SnapshotCorrupt(StoreError):
    """What is stored of this entity cannot be decoded: restore it from its journal or a backup."""

    code = "snapshot_corrupt"
    http_status = 500
    is_retryable = False


class SchemaTooNew(StoreError):
    """The database was written by a newer program: use that program, or restore a backup."""

    code = "schema_too_new"
    is_retryable = False


class SchemaTooOld(StoreError):
    """The database was written by an older program: `deltaci serve` brings it to this program's schema."""

    code = "schema_too_old"
    is_retryable = False


class ForgeError(DeltaError):
    """A forge did not do what was asked."""

    code = "forge"
    http_status = 502


class ForgeUnavailable(ForgeError):
    """The forge does not answer or asks to wait: try again later."""

    code = "forge_unavailable"
    is_retryable = True


class ForgeRejected(ForgeError):
    """The forge refused for good: the repository is gone, a right is missing, or the request is wrong."""

    code = "forge_rejected"


class PlanFailed(DeltaError):
    """No plan can be made from this commit; the text says why and where."""

    code = "plan_failed"
    http_status = 422
