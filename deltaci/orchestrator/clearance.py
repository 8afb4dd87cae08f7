"""What a new run waits for, by what is stored of its commit and of its author."""

from deltaci.domain import trust
from deltaci.domain.events import Trigger
from deltaci.domain.repo import Repo, run_key
from deltaci.domain.trust import Clearance
from deltaci.store.port import Store


async def clearance(store: Store, repo: Repo, trigger: Trigger) -> Clearance:
    """What a new run of `trigger` waits for, by what is stored."""
    if not trust.is_asked(repo, trigger):
        return Clearance()
    latest = await store.latest_run(run_key(repo.id, trigger))
    earlier = None if latest is None else await store.load_run(latest.run_id)
    is_author_known = bool(trigger.author) and await store.is_author_approved(repo.id, trigger.author)
    return trust.clearance(repo, trigger, earlier=earlier, is_author_known=is_author_known)
