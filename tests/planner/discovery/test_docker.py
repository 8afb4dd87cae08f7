"""Images: which Dockerfiles are built, from where, and what touches them."""

import time

import pytest

from tests.planner.discovery.native_plans import discovery_of, projects_of, running, runs

pytestmark = pytest.mark.anyio
PLAIN = "FROM alpine:3\nCOPY . /app\n"
GO = {"api/go.mod": "module api\n"}


def built(files: dict[str, str], project: str) -> list[tuple[str, str]]:
    """The commands of a project's job with the directories that they run in."""
    return [(step.run, step.workdir) for step in projects_of(files)[project].jobs[0].steps]


def test_an_image_is_built_where_its_dockerfile_is() -> None:
    """The command that everybody knows, with no cache and no name for the result."""
    assert built({"api/Dockerfile": PLAIN, **GO}, "docker:api") == [("docker build --file Dockerfile .", "api")]


def test_several_files_of_one_directory_are_steps_of_one_job() -> None:
    """By all the names that people give them; what stands beside them is none."""
    names = [
        "Dockerfile",
        "Dockerfile.slim",
        "web.Dockerfile",
        "Containerfile",
        "Dockerfile.j2",
        "Dockerfile.dockerignore",
    ]

    project = projects_of(dict.fromkeys(names, PLAIN))["docker:."]

    assert [job.check for job in project.jobs] == ["build"]
    assert runs(project, "build") == [
        f"docker build --file {name} ." for name in ("Containerfile", "Dockerfile", "Dockerfile.slim", "web.Dockerfile")
    ]


@pytest.mark.parametrize(
    ("copy", "expected"),
    [
        ("COPY go.mod go.sum ./", "api"),
        ("COPY api/go.mod ./", "."),
        ("COPY ./api/src /src", "."),
        ("COPY libs/shared /shared", "."),
        ('COPY ["libs/shared", "/shared"]', "."),
        ("COPY --chown=a:b \\\n  libs/shared \\\n  # why\n  /shared", "."),
        ("RUN --mount=type=bind,source=libs/shared,target=/x make", "."),
        ("COPY --from=build libs/shared /shared", "api"),
        ("ADD https://example.com/libs/shared /shared", "api"),
        ("COPY go.mod libs/shared /x/", "api"),
        ("COPY go.* ./\nCOPY libs/sh* ./\nCOPY libs/shared/go.mod ./", "."),
        ("RUN <<EOF\nCOPY libs/shared /x\nEOF", "api"),
        ("COPY $WHAT /x", "api"),
        ("COPY . .", "api"),
    ],
)
def test_the_context_is_the_directory_in_which_the_sources_are(copy: str, expected: str) -> None:
    """The Dockerfile's own, unless more of what is copied exists only from one above it."""
    files = {"api/Dockerfile": f"FROM alpine\n{copy}\n", "libs/shared/go.mod": "module s\n", **GO}

    file = "Dockerfile" if expected == "api" else "api/Dockerfile"
    assert built(files, "docker:api") == [(f"docker build --file {file} .", expected)]


def test_a_directory_for_dockerfiles_packs_what_is_above_it() -> None:
    """`docker/Dockerfile` with `COPY . .` would be an image of itself."""
    files = {"docker/Dockerfile": PLAIN, "go.mod": "module a\n"}

    assert built(files, "docker:docker") == [("docker build --file docker/Dockerfile .", ".")]


def test_names_are_quoted() -> None:
    """A file name is what its author likes."""
    files = {"a b/$(x).Dockerfile": "FROM alpine\nCOPY libs/s /x\n", "libs/s/go.mod": "module s\n"}

    assert built(files, "docker:a b") == [("docker build --file 'a b/$(x).Dockerfile' .", ".")]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("FROM {{ base }}\n", "template"),
        ("COPY a b\n", "no FROM"),
        ("", "no FROM"),
        ("ARG BASE\nFROM ${BASE}\n", "argument without a default"),
        ("FROM mcr.microsoft.com/windows/servercore:ltsc2022\n", "Windows"),
        ("FROM jre\nCOPY target/*.jar app.jar\n", "built first"),
        ("FROM jre\nARG JAR=target/*.jar\nCOPY ${JAR} app.jar\n", "built first"),
        ("FROM nginx\nCOPY ./dist /usr/share/nginx/html\n", "built first"),
    ],
)
def test_what_cannot_be_built_in_a_fresh_checkout_is_told_instead(text: str, part: str) -> None:
    """It would fail on every change, whatever the change."""
    found = discovery_of({"Dockerfile": text})

    assert found.projects == ()
    assert [(reason.rule, part in reason.text) for reason in found.reasons] == [("image-unused", True)]


@pytest.mark.parametrize(
    "text",
    [
        "ARG BASE=alpine\nFROM ${BASE}\n",
        "FROM ${BASE:-alpine}\n",
        "FROM --platform=$BUILDPLATFORM golang AS b\nFROM scratch\nCOPY --from=b /target /x\n",
        "# syntax=docker/dockerfile:1\nfrom alpine\n",
    ],
)
def test_a_base_that_is_known_is_enough(text: str) -> None:
    """Defaults, and what the builder sets by itself."""
    assert list(projects_of({"Dockerfile": text})) == ["docker:."]


def test_a_path_from_the_root_counts_more_than_a_directory_that_happens_to_have_its_name() -> None:
    """`src/cart/src/Dockerfile` copies `src/cart/`: that is there only as seen from the root."""
    files = {"src/cart/src/Dockerfile": "FROM a\nCOPY src/cart/ /x\n", "src/cart/go.mod": "module c\n"}

    assert built(files, "docker:src/cart/src") == [("docker build --file src/cart/src/Dockerfile .", ".")]


@pytest.mark.parametrize(
    "path", ["tests/Dockerfile", ".devcontainer/Dockerfile", "testdata/a/Dockerfile", "load-tests/Dockerfile"]
)
def test_images_to_test_with_or_to_work_in_are_left_out(path: str) -> None:
    """They are not what the repository delivers."""
    assert projects_of({path: PLAIN}) == {}


SHOP = {
    "Dockerfile": "FROM alpine\nCOPY api /api\n",
    "api/go.mod": "module api\nreplace example.com/s => ../libs/shared\n",
    "libs/shared/go.mod": "module example.com/s\n",
    "web/package.json": '{"scripts": {"test": "x"}}',
    "web/Dockerfile": "FROM node\nCOPY package.json ./\nCOPY src ./src\n",
    "images/proxy/Dockerfile": "FROM nginx\nCOPY nginx.conf /etc/\n",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("api/a.go", {"go-test (api)", "docker-build"}),
        ("libs/shared/a.go", {"go-test (libs/shared)", "go-test (api)", "docker-build"}),
        ("web/src/a.js", {"node-test (web)", "docker-build (web)"}),
        ("web/test/a.js", {"node-test (web)"}),
        ("web/Dockerfile", {"node-test (web)", "docker-build (web)"}),
        ("images/proxy/nginx.conf", {"docker-build (images/proxy)"}),
    ],
)
async def test_an_image_is_touched_by_what_it_packs(path: str, expected: set[str]) -> None:
    """And by what that depends on; what it does not copy leaves it alone."""
    assert await running(SHOP, path) == expected


async def test_an_image_at_the_root_takes_no_file_from_the_projects() -> None:
    """What belongs to no project still touches all of them, also if an image copies everything."""
    files = SHOP | {"Dockerfile": PLAIN}
    everything = {"go-test (api)", "go-test (libs/shared)", "node-test (web)", "docker-build", "docker-build (web)"}

    assert await running(SHOP, "proto/a.proto") == await running(files, "proto/a.proto")
    assert await running(files, "proto/a.proto") == everything | {"docker-build (images/proxy)"}
    assert await running(files, "web/test/a.js") == {"node-test (web)", "docker-build"}


async def test_images_alone_do_not_share_out_what_none_of_them_copies() -> None:
    """Without any other project, a file that the image at the root does not read may be of the others."""
    files = {"Dockerfile": "FROM a\nCOPY x /x\n", "images/b/Dockerfile": "FROM b\n"}

    assert await running(files, "common/setup.sh") == {"docker-build", "docker-build (images/b)"}
    assert await running(files, "images/b/setup.sh") == {"docker-build (images/b)"}


def test_projects_that_are_ignored_are_not_packed() -> None:
    """A pattern of .dockerignore begins at the context, not at any depth."""
    files = {"x/Dockerfile": PLAIN, "x/.dockerignore": "# c\nb\n!b/keep\n", "x/a/go.mod": "module a\n"}
    files |= {"x/b/go.mod": "module b\n", "x/a/b/go.mod": "module c\n"}

    project = projects_of(files)["docker:x"]

    assert project.depends_on_roots == {"x/a", "x/a/b"}
    assert "x/.dockerignore" in project.reads


async def test_an_image_of_very_many_projects_is_touched_by_everything() -> None:
    """Rather than by a list that grows with the square of the repository."""
    files = {f"libs/l{i}/go.mod": f"module l{i}\n" for i in range(60)} | {"Dockerfile": "FROM a\nCOPY libs /libs\n"}

    assert "docker-build" in await running(files | {"web/package.json": "{}"}, "web/a.js")


def test_an_image_beside_a_makefile_is_built_as_well() -> None:
    """An image is no language: it explains nothing that make does."""
    assert sorted(projects_of({"Dockerfile": PLAIN, "Makefile": "test:\n\tx\n"})) == ["docker:.", "make:."]


HOSTILE = {
    "a huge line": "FROM a\nCOPY " + "x " * 450_000,
    "a million instructions": "FROM a\n" + "COPY a b\n" * 110_000,
    "continued lines": "FROM a\nCOPY \\\n" + "a \\\n" * 200_000,
    "brackets": "FROM a\nCOPY " + "[" * 900_000 + "\n",
    "a document without an end": "FROM a\nRUN <<EOF\n" + "x\n" * 400_000,
    "documents": "FROM a\nRUN " + "<<A " * 200_000,
    "dollars": "FROM " + "$" * 900_000,
    "mounts": "FROM a\nRUN " + "--mount=type=bind,source=a " * 35_000,
    "dots": "FROM a\nCOPY " + "../" * 300_000 + " x\n",
    "arguments": "FROM a\nARG " + "a=b " * 200_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_dockerfile_costs_little(text: str) -> None:
    """It is built, for all that is copied, or said to be nothing; in time linear in its size."""
    start = time.process_time()

    found = discovery_of({"/".join("d" * 300) + "/Dockerfile": text})

    assert len(found.projects) + len(found.reasons) == 1
    assert time.process_time() - start < 5


def test_a_source_above_the_context_is_the_context() -> None:
    """Docker itself cannot leave it."""
    project = projects_of({"a/b/Dockerfile": "FROM x\nCOPY ../../../../etc /x\n", "a/go.mod": "module a\n"})[
        "docker:a/b"
    ]

    assert project.reads == {"a/b", "a/b/Dockerfile"}


def test_a_symbolic_link_is_no_dockerfile() -> None:
    """Its contents are a path, and where that leads is not known."""
    assert projects_of({"Dockerfile": PLAIN}, {"Dockerfile": "120000"}) == {}


@pytest.mark.slow
def test_two_thousand_images_are_found_in_seconds() -> None:
    """Each copies directories of others."""
    files = {f"s/s{i}/Dockerfile": f"FROM a\nCOPY s/s{i} /a\nCOPY libs /libs\n" for i in range(2000)}
    files |= {f"s/s{i}/go.mod": f"module s{i}\n" for i in range(2000)} | {
        f"libs/l{i}/go.mod": f"module l{i}\n" for i in range(40)
    }
    start = time.process_time()

    found = projects_of(files)

    assert len(found) == 4040
    assert time.process_time() - start < 5


@pytest.mark.parametrize("path", ["devtools/Dockerfile", "docker/ci.Dockerfile", "Dockerfile.dev", "a-ci/Dockerfile"])
def test_an_image_to_develop_or_test_in_is_not_built(path: str) -> None:
    """Nobody ships it: what runs in it is what is checked. It is said that it was left out."""
    answer = discovery_of({path: PLAIN, "api/Dockerfile": PLAIN, **GO})

    assert [project.root for project in answer.projects if project.ecosystem == "docker"] == ["api"]
    assert [reason.file for reason in answer.reasons if reason.rule == "image-unused"] == [path]


def test_an_image_that_packs_nothing_is_there_to_build_in() -> None:
    """Where there is something to pack; a repository of such images alone has them for its products."""
    tools = {"dockerfiles/debian/Dockerfile": "FROM debian\nRUN apt-get install -y gcc\n"}

    beside = discovery_of({"CMakeLists.txt": "project(a C)\n", **tools})

    assert [project.root for project in beside.projects if project.ecosystem == "docker"] == []
    assert [reason.rule for reason in beside.reasons] == ["image-unused"]
    assert [project.root for project in discovery_of(tools).projects] == ["dockerfiles/debian"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [("go test ./...", []), ("docker build -t x .", ["api"]), ("make build-image", ["api"])],
)
def test_images_are_built_where_the_own_ci_builds_any(command: str, expected: list[str]) -> None:
    """On whatever occasion; where it never does, somebody else does, and here nobody would see why it failed."""
    ci = {".github/workflows/ci.yml": f"steps:\n  - run: {command}\n"}
    answer = discovery_of({"api/Dockerfile": PLAIN, **GO, **ci})

    assert [project.root for project in answer.projects if project.ecosystem == "docker"] == expected
