"""No credentials in the file: what looks like one is a problem, and what only looks odd is none."""

import random
import string

import pytest

from deltaci.planner.configuration import load
from deltaci.planner.configuration.secrets import kind_of
from deltaci.planner.errors import ConfigurationInvalid
from deltaci.planner.repository import Files

# Put together here, so that no scanner takes this file for a leak.
FAKE = {
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----\\nMIIEow==",
    "aws key id": "AKIA" + "Q7ZJ3P5XN2VKW4MD",
    "github": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "gitlab": "glpat-" + "x9Kd-72hQz_Lw81mPp3T",
    "slack": "xoxb-" + "123456789012-abcdefGHIJ",
}


@pytest.mark.parametrize("kind", FAKE)
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('version: 1\nenv: {VALUE: "%s"}\njobs: {a: {steps: [t]}}\n', "env.VALUE"),
        ('version: 1\njobs: {a: {steps: ["login %s"]}}\n', "jobs.a.steps[0]"),
        ('version: 1\njobs: {a: {steps: [{run: t, env: {X: "%s"}}]}}\n', "jobs.a.steps[0].env.X"),
    ],
)
def test_a_credential_is_a_problem_at_its_key_and_never_repeated(kind: str, text: str, key: str) -> None:
    """The kind, the place and what to do; the value stays where it was."""
    with pytest.raises(ConfigurationInvalid) as caught:
        load((text % FAKE[kind]).encode(), Files(()))

    (problem,) = caught.value.problems
    assert problem.key == key
    assert f"looks like a credential ({kind})" in problem.text
    assert FAKE[kind] not in str(caught.value)


def test_a_credential_in_the_wrong_place_is_not_quoted_by_another_problem() -> None:
    """As a label it is refused for two reasons, and a run's text is read by many."""
    text = f"version: 1\njobs: {{a: {{steps: [t], needs: ['{FAKE['github']}'], '{FAKE['gitlab']}': 1}}}}\n"

    with pytest.raises(ConfigurationInvalid) as caught:
        load(text.encode(), Files(()))

    assert len(caught.value.problems) == 4
    assert not any(secret in str(problem) for problem in caught.value.problems for secret in FAKE.values())


@pytest.mark.parametrize("seed", range(20))
def test_a_random_token_is_found_in_an_environment(seed: int) -> None:
    """Long ones whatever the variable is called, shorter ones where its name says what they are."""
    chance = random.Random(seed)
    long = "".join(chance.choices(string.ascii_letters + string.digits, k=48))
    short = "".join(chance.choices(string.ascii_lowercase + string.digits, k=24))

    assert kind_of(long, variable="SETTING") == "random token"
    assert kind_of(short, variable="DEPLOY_TOKEN") == "value of a variable for secrets"
    assert kind_of(short, variable="SETTING") is None
    assert kind_of(long) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PATH", "/usr/local/lib/Python3/Some1/Other2/VeryLong3:/usr/bin"),
        ("COMMIT", "0123456789abcdef0123456789abcdef01234567"),
        ("INTEGRITY", "sha512-Zk3pQ0aXvB8mN1cL7jH5gF2dS9aR4eT6yU8iO0pLkJhGfDsAqWeRtYuIoP1234=="),
        ("API_TOKEN", "changeme"),
        ("API_TOKEN", "${API_TOKEN}"),
        ("DB_PASSWORD", "postgres"),
        ("FLAGS", "--enable-feature=SomethingLong2,AnotherThing3,YetAnother4"),
        ("CACHE_KEY", "pip-3.12-linux-2024-12-31-release-build"),
        ("MODULE", "com.example.project.module.SomeVeryLongClassName2"),
        ("SSH_KEY_FILE", "keys/PRIVATE_KEY.pub"),
    ],
)
def test_what_is_no_credential_is_let_through(variable: str, value: str) -> None:
    """A check that cries wolf is turned off, or worse, worked around."""
    assert kind_of(value, variable=variable) is None
