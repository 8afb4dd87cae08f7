"""Files of other CI systems and of forges: no job hangs on them, unless its project reads them.

Rule: only files that those systems themselves look for, by place and name. What else is in their directories, such as a
script, may be called by anybody.
"""

import re
from typing import Final

_FILES: Final = frozenset(
    {
        *(".gitlab-ci.yml", ".travis.yml", "appveyor.yml", ".appveyor.yml", "Jenkinsfile", "circle.yml", "wercker.yml"),
        *("azure-pipelines.yml", ".azure-pipelines.yml", "bitbucket-pipelines.yml", ".cirrus.yml", ".drone.yml"),
        *(".woodpecker.yml", ".woodpecker.yaml", ".semaphore/semaphore.yml", ".github/CODEOWNERS"),
        *(".gitlab/CODEOWNERS", ".gitea/CODEOWNERS", ".github/release.yml", ".github/release.yaml"),
    }
)
_PATTERN: Final = re.compile(
    r"\.(?:github|gitea|forgejo)/workflows/[^/]+\.ya?ml|\.github/actions/.+|"
    r"\.(?:circleci|buildkite|woodpecker|azure-pipelines)/[^/]+\.ya?ml|\.gitlab/ci/.+\.ya?ml|"
    r"\.github/(?:dependabot|FUNDING|labeler|stale|settings|config)\.ya?ml|"
    r"\.(?:github|gitea)/(?:ISSUE_TEMPLATE|DISCUSSION_TEMPLATE|PULL_REQUEST_TEMPLATE)/.+|"
    r"\.gitlab/(?:issue|merge_request)_templates/.+",
    re.IGNORECASE,
)
# Where they are: what a program looks at that looks at all of them.
PLACES: Final = frozenset({path.partition("/")[0] for path in _FILES}) | {
    *(".github", ".gitea", ".forgejo", ".circleci", ".buildkite", ".woodpecker", ".azure-pipelines", ".gitlab")
}
_LOOKS: Final = re.compile(
    r"\.(?:github|gitlab|circleci)\b|actionlint|yamllint|zizmor|pre-commit|prek\b|prettier|oxfmt|dprint|biome|cspell|"
    r"codespell|typos|editorconfig|super-linter|trunk check|reuse lint|\bact\b"
)


def is_of_other_ci(path: str) -> bool:
    """Whether only another CI system, or a forge, looks for a file at `path`, from the root of the repository."""
    return path in _FILES or _PATTERN.fullmatch(path) is not None


def looks_at_them(script: str) -> bool:
    """Whether a script names such files, or a program that is known to look at them as at all others."""
    return _LOOKS.search(script) is not None
