"""The key `notify` of `deltaci.yaml`: which channels are told how runs end.

Rule: a channel is a name here; its address is a secret of the server, which alone knows whether there is such a one.
"""

from collections.abc import Iterator

from deltaci.domain.plan import Happening
from deltaci.planner.configuration import keys
from deltaci.planner.configuration.keys import names
from deltaci.planner.configuration.shape import (
    CHANNEL,
    HAPPENINGS,
    HAPPENINGS_DEFAULT,
    NOTIFY_MAX,
    Notification,
)
from deltaci.planner.configuration.values import Values, place
from deltaci.planner.errors import printable
from deltaci.planner.yaml_nodes import Fields, Items, Node

CHANNEL_TEXT = "a channel is named by 1 to 64 letters, digits and _ . -; its address is in a file of the server"


class Notifications(Values):
    """Reads the rules; those with a problem are left out."""

    def read(self, node: Node | None) -> tuple[Notification, ...]:
        """All of them, in the order of the file."""
        items = self.items(node, "notify", "a list of mappings with 'channel'")
        if node is not None and len(items) > NOTIFY_MAX:
            self.problems.add(place(node, "notify"), f"{len(items)} rules; at most {NOTIFY_MAX} are accepted")
            return ()
        if node is not None and isinstance(node, Items) and not items:
            self.problems.add(place(node, "notify"), "an empty list tells nobody; remove the key, or name a channel")
        rules = (self._rule(item, f"notify[{index}]") for index, item in enumerate(items))
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, node: Node, key: str) -> Notification | None:
        fields = self.fields(node, key, names(keys.NOTIFY), "a mapping with 'channel'")
        if fields is None:
            return None
        on = tuple(self._happenings(fields, f"{key}.on"))
        branches = fields.get("branches")
        patterns = self.branches(branches, f"{key}.branches")
        if branches is not None and isinstance(branches, Items) and not branches.items:
            self.problems.add(
                place(branches, f"{key}.branches"), "an empty list tells nobody; remove the key, or name branches"
            )
        if fields.get("channel") is None:
            self.problems.add(place(fields, f"{key}.channel"), "missing; name a channel of the server")
        channel = self.text(fields.get("channel"), f"{key}.channel", "the name of a channel")
        if channel is None:
            return None
        if not CHANNEL.fullmatch(channel.text):
            self.problems.add(channel.at, CHANNEL_TEXT)
        return Notification(
            channel=channel.text,
            on=on or HAPPENINGS_DEFAULT,
            branches=None if branches is None else tuple(pattern.text for pattern in patterns),
        )

    def _happenings(self, rule: Fields, key: str) -> Iterator[Happening]:
        node = rule.get("on")
        texts = self.texts(node, key, "ends of runs")
        if node is not None and isinstance(node, Items) and not node.items:
            self.problems.add(place(node, key), f"an empty list; name some of {', '.join(HAPPENINGS)}")
        for text in texts:
            known = next((one for one in HAPPENINGS if one == text.text), None)
            if known is None:
                near = self.problems.nearest(text.text, HAPPENINGS)
                accepted = ", ".join(HAPPENINGS)
                shown = printable(text.text, length_max=40)
                self.problems.add(text.at, f"{shown!r} is no end of a run{near}; accepted: {accepted}")
            else:
                yield known
