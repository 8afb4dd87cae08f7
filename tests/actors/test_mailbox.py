"""The two lanes and coalescing, which need no loop."""

from typing import Any

import pytest

from actors import Answer, MailboxFull
from actors.mailbox import Envelope, Mailbox, MailboxLimits
from tests.actors.support import Keyed, Probe, Urgent


def a_mailbox(normal_max: int = 10, urgent_max: int = 10) -> Mailbox:
    return Mailbox("/a", Probe, MailboxLimits(normal_max, urgent_max, retry_after_s=3.0))


def drain(mailbox: Mailbox) -> list[Any]:
    messages = []
    while not mailbox.empty():
        messages.append(mailbox.get().message)
    return messages


def test_urgent_messages_overtake_and_keep_their_own_order() -> None:
    """A cancel does not wait behind a thousand log lines."""
    mailbox = a_mailbox()
    for message in ("a", Urgent("x"), "b", Urgent("y")):
        mailbox.put(Envelope(message))

    messages = drain(mailbox)

    assert [Urgent("x"), Urgent("y"), "a", "b"] == messages


def test_a_full_lane_refuses_and_says_when_to_come_back() -> None:
    """Load is pushed back to the sender, who can wait, instead of into memory, which cannot."""
    mailbox = a_mailbox(normal_max=2)
    mailbox.put(Envelope("a"))
    mailbox.put(Envelope("b"))

    with pytest.raises(MailboxFull) as refusal:
        mailbox.put(Envelope("c"))

    assert (refusal.value.path, refusal.value.size, refusal.value.retry_after_s) == ("/a", 2, 3.0)
    assert drain(mailbox) == ["a", "b"]


def test_the_urgent_lane_has_room_when_the_normal_one_is_full() -> None:
    """A flood of heartbeats must not keep a cancel out."""
    mailbox = a_mailbox(normal_max=1, urgent_max=1)
    mailbox.put(Envelope("a"))

    mailbox.put(Envelope(Urgent("x")))

    assert len(mailbox) == 2
    with pytest.raises(MailboxFull, match="urgent lane"):
        mailbox.put(Envelope(Urgent("y")))


def test_a_newer_message_takes_the_place_of_one_with_its_key() -> None:
    """Only the newest heartbeat matters; it waits where the first one waited, even in a full lane."""
    mailbox = a_mailbox(normal_max=3)
    for message in (Keyed("k", "old"), Keyed("other", "one"), "a"):
        mailbox.put(Envelope(message))

    mailbox.put(Envelope(Keyed("k", "new")))

    assert [Keyed("k", "new"), Keyed("other", "one"), "a"] == drain(mailbox)


def test_a_message_that_was_taken_is_not_replaced() -> None:
    """What is being handled is out of the mailbox: the newer message is one of its own."""
    mailbox = a_mailbox()
    mailbox.put(Envelope(Keyed("k", "old")))
    taken = mailbox.get()

    mailbox.put(Envelope(Keyed("k", "new")))

    assert Keyed("k", "old") == taken.message
    assert [Keyed("k", "new")] == drain(mailbox)


def test_everyone_who_asked_a_coalesced_message_is_answered() -> None:
    """Dropping the older ask would leave its asker waiting for ever."""
    mailbox = a_mailbox()
    answers: list[Answer[str]] = [Answer() for _ in range(3)]
    for number, answer in enumerate(answers):
        mailbox.put(Envelope(Keyed("k", str(number)), reply_to=answer))

    envelope = mailbox.get()
    assert envelope.reply_to is not None
    envelope.reply_to.set(f"to {envelope.message.word}")

    assert [answer.get() for answer in answers] == ["to 2"] * 3


def test_an_ask_that_replaces_a_tell_is_answered() -> None:
    """The tell had nobody to answer to; the ask has."""
    mailbox = a_mailbox()
    answer: Answer[str] = Answer()
    mailbox.put(Envelope(Keyed("k", "told")))

    mailbox.put(Envelope(Keyed("k", "asked"), reply_to=answer))

    assert answer is mailbox.get().reply_to


def test_the_high_water_mark_remembers_the_deepest_queue() -> None:
    """It shows on the tree how close to refusing an actor came."""
    mailbox = a_mailbox()
    for message in ("a", "b", Urgent("c")):
        mailbox.put(Envelope(message))

    drain(mailbox)
    mailbox.shrink()
    mailbox.put(Envelope("d"))

    assert (mailbox.high_water, len(mailbox)) == (3, 1)
