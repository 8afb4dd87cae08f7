"""Digests of what members of a lock reach: cycles, depth and what is unknown."""

import random

import pytest

from deltaci.planner.locks.lock import Lock, Node, closure, digests, relative


def lock_of(edges: dict[str, str], **own: str) -> Lock:
    """`edges` are letters -> letters; `own` contents of nodes, their letter if not given. All nodes are members."""
    nodes = {
        key: Node(key, "1", own.get(key, key), tuple((target, target) for target in targets))
        for key, targets in edges.items()
    }
    return Lock(settings="", nodes=nodes, members={key: key for key in nodes})


def changed(one: Lock, other: Lock) -> set[str]:
    before, after = digests(one), digests(other)
    return {root for root in before if before[root] != after[root]}


def test_a_change_reaches_those_above_it_and_no_others() -> None:
    """This is the whole point of looking into locks."""
    edges = {"a": "c", "b": "d", "c": "e", "d": "", "e": ""}

    found = changed(lock_of(edges), lock_of(edges, e="new"))

    assert found == {"a", "c", "e"}


def test_all_of_a_cycle_change_with_what_it_reaches() -> None:
    """Packages do depend on each other in circles, and each of them gets all of it."""
    edges = {"a": "b", "b": "c", "c": "ax", "x": "", "y": "x", "z": ""}

    found = changed(lock_of(edges), lock_of(edges, x="new"))

    assert found == {"a", "b", "c", "x", "y"}


def test_equal_contents_in_a_cycle_are_told_apart_by_place() -> None:
    """Two copies of one package that swap what they depend on are a change."""
    one = lock_of({"m": "ab", "a": "bx", "b": "ay", "x": "", "y": ""}, a="same", b="same")
    other = lock_of({"m": "ab", "a": "by", "b": "ax", "x": "", "y": ""}, a="same", b="same")

    assert "m" in changed(one, other)


def test_an_edge_to_nowhere_makes_all_above_it_unknown() -> None:
    """What a lock does not say cannot be compared, not even with the same gap."""
    found = digests(lock_of({"a": "b", "b": "?", "c": "d", "d": "", "e": "fb", "f": "e"}))

    assert {root for root, digest in found.items() if digest is None} == {"a", "b", "e", "f"}


def test_the_order_of_edges_and_nodes_does_not_matter() -> None:
    """Locks are written by many versions of a tool."""
    one = lock_of({"a": "bc", "b": "a", "c": ""})
    other = lock_of({"c": "", "b": "a", "a": "cb"})

    assert changed(one, other) == set()


def test_a_long_chain_needs_no_recursion() -> None:
    """A hostile lock is as deep as it is long."""
    count = 5_000
    nodes = {str(n): Node(str(n), "1", str(n), (("", str(n + 1)),)) for n in range(count)}
    nodes[str(count)] = Node("", "", "", (("", str(count // 2)),))

    found = digests(Lock(settings="", nodes=nodes, members={"m": "0"}))

    assert found["m"] is not None


def test_digests_agree_with_a_comparison_of_closures() -> None:
    """Against the definition: a member changes exactly if the contents or edges of something it reaches do."""
    random_ = random.Random(11)
    for case in range(400):
        letters = "abcdefgh"[: random_.randint(2, 8)]
        edges = {key: "".join(random_.sample(letters, random_.randint(0, 2))) for key in letters}
        other = dict(edges)
        key = random_.choice(letters)
        if random_.random() < 0.5:
            other[key] = "".join(random_.sample(letters, random_.randint(0, 2)))
        own = {random_.choice(letters): "new"} if random_.random() < 0.5 else {}
        one, two = lock_of(edges), lock_of(other, **own)
        moved = {key for key in letters if set(edges[key]) != set(other[key]) or key in own}

        found = changed(one, two)

        expected = {root for root in letters if (closure(one.nodes, root) | closure(two.nodes, root)) & moved}
        assert found == expected, (case, edges, other, own)


@pytest.mark.parametrize("count", [3, 50])
def test_a_big_circle_has_one_digest_that_any_member_changes(count: int) -> None:
    """Nothing of a circle may be forgotten when it is hashed as one."""
    nodes = {str(n): Node(str(n), "1", str(n), (("", str((n + 1) % count)),)) for n in range(count)}
    before = digests(Lock(settings="", nodes=nodes, members={"m": "0"}))
    for n in range(count):
        other = {**nodes, str(n): nodes[str(n)]._replace(own="new")}

        after = digests(Lock(settings="", nodes=other, members={"m": "0"}))

        assert after != before


@pytest.mark.parametrize(
    ("root", "directory", "expected"),
    [
        (".", ".", "."),
        ("a/b", ".", "a/b"),
        ("a/b", "a", "b"),
        ("a", "a", "."),
        (".", "a/b", "../.."),
        ("ab/c", "a", "../ab/c"),
        ("a/c", "a/b", "../c"),
    ],
)
def test_members_have_a_path_from_the_directory_of_their_lock(root: str, directory: str, expected: str) -> None:
    """That is how locks write them."""
    assert relative(root, directory) == expected
