"""The part of the memory store that keeps what forges told: the ledger of webhooks, pull requests, names of things."""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import msgspec

from deltaci.domain.pull_request import PullRequest
from deltaci.store.port import NumberedDelivery
from deltaci.store.rules import refused
from deltaci.store.writes import Delivery, DeliveryActed, SavePullRequest, SaveRemoteId

Put = Callable[[MutableMapping[Any, Any], Any, Any], None]


class MemoryForges:
    """Deliveries by repository and id, in order of arrival; `put` notes how to undo what it does."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._deliveries: dict[tuple[str, str], Delivery] = {}
        self._pull_requests: dict[tuple[str, int], PullRequest] = {}
        self._remote_ids: dict[tuple[str, str], str] = {}

    def apply(self, write: Delivery | DeliveryActed | SavePullRequest | SaveRemoteId) -> None:
        """One write; raises what its docstring says."""
        match write:
            case Delivery():
                key = (write.repo_id, write.delivery_id)
                if key in self._deliveries:
                    raise refused(write)
                self._put(self._deliveries, key, write)
            case DeliveryActed():
                key = (write.repo_id, write.delivery_id)
                if key in self._deliveries:
                    acted = msgspec.structs.replace(self._deliveries[key], outcome=write.outcome)
                    self._put(self._deliveries, key, acted)
            case SavePullRequest():
                one = write.pull_request
                self._put(self._pull_requests, (one.repo_id, one.number), one)
            case SaveRemoteId():
                self._put(self._remote_ids, (write.repo_id, write.key), write.remote_id)

    def all(self) -> tuple[Delivery, ...]:
        """The ledger, in order of arrival."""
        return tuple(self._deliveries.values())

    def delivery(self, repo_id: str, delivery_id: str) -> Delivery | None:
        """A webhook by its id."""
        return self._deliveries.get((repo_id, delivery_id))

    def by_digest(self, repo_id: str, body_sha256: str) -> Delivery | None:
        """The first delivery with this content that made or found a run, or asked for something."""
        for one in self._deliveries.values():
            if one.repo_id == repo_id and one.body_sha256 == body_sha256 and one.ignored is None:
                return one
        return None

    def newest(self, repo_id: str | None, before: int | None, limit: int) -> tuple[NumberedDelivery, ...]:
        """A page of the ledger, newest first."""
        numbered = [NumberedDelivery(number=number, delivery=one) for number, one in enumerate(self.all(), 1)]
        wanted = [
            one
            for one in reversed(numbered)
            if (repo_id is None or one.delivery.repo_id == repo_id) and (before is None or one.number < before)
        ]
        return tuple(wanted[:limit])

    def pull_request(self, repo_id: str, number: int) -> PullRequest | None:
        """A pull request."""
        return self._pull_requests.get((repo_id, number))

    def open_pull_requests(self, repo_id: str) -> tuple[PullRequest, ...]:
        """Those that are open, by number."""
        found = (self._pull_requests[key] for key in sorted(self._pull_requests) if key[0] == repo_id)
        return tuple(one for one in found if one.is_open)

    def known(self, delivery_ids: Sequence[str]) -> frozenset[str]:
        """Those that are in the ledger."""
        return frozenset(delivery_id for _, delivery_id in self._deliveries if delivery_id in delivery_ids)

    def remote_ids(self, repo_id: str, prefix: str) -> dict[str, str]:
        """What the forge calls things of ours, those whose key begins with `prefix`."""
        found = ((key, told) for (repo, key), told in self._remote_ids.items() if repo == repo_id and told)
        return {key.removeprefix(prefix): told for key, told in found if key.startswith(prefix)}

    def remote_id(self, repo_id: str, key: str) -> str | None:
        """What the forge calls something of ours."""
        return self._remote_ids.get((repo_id, key))
