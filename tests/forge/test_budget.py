"""What may be written when: the windows slide, and what is more important has something left."""

from deltaci.forge.budget import HOUR_MS, MARGIN_MS, MINUTE_MS, WriteBudget


def spend(budget: WriteBudget, count: int, at_ms: int, account: str = "a") -> None:
    for _ in range(count):
        budget.spent(account, at_ms)


def test_the_eighty_first_write_of_a_minute_waits_for_the_first_to_be_a_minute_old() -> None:
    """And another account does not wait for it."""
    budget = WriteBudget()
    spend(budget, 1, 0)
    spend(budget, 79, 30_000)

    assert budget.wait_ms("a", 30_000) == MINUTE_MS + MARGIN_MS - 30_000
    assert budget.wait_ms("b", 30_000) == 0
    assert budget.wait_ms("a", MINUTE_MS + MARGIN_MS - 1) == 1
    assert budget.wait_ms("a", MINUTE_MS + MARGIN_MS) == 0


def test_an_hour_holds_five_hundred() -> None:
    """However evenly they are sent."""
    budget = WriteBudget()
    for number in range(500):
        assert budget.wait_ms("a", number * 1_000) == 0
        budget.spent("a", number * 1_000)

    assert budget.wait_ms("a", 500_000) == HOUR_MS + MARGIN_MS - 500_000
    assert budget.wait_ms("a", HOUR_MS + MARGIN_MS) == 0


def test_what_is_kept_is_left_for_what_is_more_important() -> None:
    """Final states go on when others have to wait; who keeps more than there is still gets a turn."""
    budget = WriteBudget(a_minute=10, an_hour=100)
    spend(budget, 6, 0)

    assert budget.wait_ms("a", 0) == 0
    assert budget.wait_ms("a", 0, keep=3) == 0
    assert budget.wait_ms("a", 0, keep=4) == MINUTE_MS + MARGIN_MS
    assert budget.wait_ms("b", 0, keep=1_000) == 0


def test_an_account_that_wrote_long_ago_is_forgotten() -> None:
    """Accounts come and go with their tokens."""
    budget = WriteBudget()
    spend(budget, 3, 0)

    assert budget.wait_ms("a", 2 * HOUR_MS) == 0
    assert budget._writes == {}
