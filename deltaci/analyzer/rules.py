"""What failures look like in a log: a table, the most important kind first.

Rule 1: of the first rule that matches any line, the last match counts: tools print reruns first and failures last.
Rule 2: a rule that needs an exit code is not looked at without it; the code alone is no evidence.
Rule 3: every expression is linear, as in `patterns.py`.

Order: what makes everything else fail (disk, memory), then what the change itself broke (tests, types, format, lint,
compile), then what was around it (network, registries), then the tools. A test that provokes a refused connection
prints one; it must not be taken for the network's fault.
"""

import re
from typing import Final, NamedTuple

from deltaci.domain.states import EndReason


class Rule(NamedTuple):
    """How one kind of failure is recognised and told.

    `summary` may name groups of the expression. `before` and `after`: how many lines around the match belong to it.
    `upshot`: the first line below the match that says what it comes down to (the end of its traceback); it and the line
    before it then stand for all that is in between.
    """

    category: str
    expression: re.Pattern[str]
    summary: str
    next_step: str
    confidence: float = 0.9
    exit_codes: frozenset[int] = frozenset()
    before: int = 0
    after: int = 0
    upshot: re.Pattern[str] | None = None


class Told(NamedTuple):
    """What is known without any log."""

    category: str
    confidence: float
    summary: str
    next_step: str


def _rule(
    category: str,
    expression: str,
    summary: str,
    next_step: str,
    *,
    confidence: float = 0.9,
    exit_codes: tuple[int, ...] = (),
    before: int = 0,
    after: int = 0,
    upshot: str = "",
) -> Rule:
    return Rule(
        category,
        re.compile(expression, re.ASCII),
        summary,
        next_step,
        confidence,
        frozenset(exit_codes),
        before,
        after,
        re.compile(upshot, re.ASCII) if upshot else None,
    )


TEST: Final = "user.test"
COMPILE: Final = "user.compile"
LINT: Final = "user.lint"
TYPE: Final = "user.type"
FORMAT: Final = "user.format"
NETWORK: Final = "infrastructure.network"
DNS: Final = "infrastructure.dns"
RATE_LIMIT: Final = "infrastructure.rate_limit"
REGISTRY: Final = "infrastructure.registry"
DISK: Final = "infrastructure.disk"
OOM: Final = "infrastructure.oom"
RUNNER_LOST: Final = "infrastructure.runner_lost"
MISSING_COMMAND: Final = "tooling.missing_command"
PERMISSION: Final = "tooling.permission"
CONFIGURATION: Final = "tooling.configuration"
TIMEOUT: Final = "timeout"
CANCELED: Final = "canceled"
SUPERSEDED: Final = "superseded"
LOG_LIMIT: Final = "limit.log"
UNKNOWN: Final = "unknown"

CATEGORIES: Final = frozenset(
    {TEST, COMPILE, LINT, TYPE, FORMAT, NETWORK, DNS, RATE_LIMIT, REGISTRY, DISK, OOM, RUNNER_LOST}
    | {MISSING_COMMAND, PERMISSION, CONFIGURATION, TIMEOUT, CANCELED, SUPERSEDED, LOG_LIMIT, UNKNOWN}
)

_FREE_DISK: Final = "Free disk space on the runner, or make the job write less."
_MORE_MEMORY: Final = "Give the runner more memory, or let the job use less of it (fewer parallel processes)."
_INSTALL: Final = "Install the command in the job before it is used, or send the job to a runner that has it."
_RIGHTS: Final = "Check the file's mode (git update-index --chmod=+x) and who the runner runs as."
_READ_TEST: Final = "Run this test locally, and read what it says right above."
_FIX_CODE: Final = "Fix the code at the place that is named."
_FIX_TYPES: Final = "Fix the types at the place that is named, or run the type checker locally."
_FORMAT: Final = "Run the formatter and commit what it changes."
_LINT: Final = "Fix what the linter names, or run it locally with its fix option."
_WAIT: Final = "Wait until the limit is reset, or authenticate so that a higher one applies; then run the job again."
_RETRY: Final = "Run the job again; if it stays like this, look at the network of the runner."
_RETRY_REGISTRY: Final = "Run the job again; if it stays like this, look at the registry's status, or use a mirror."
_DEPENDENCY: Final = "Check the name and version of the dependency, and that the lock file is up to date."
_CONFIGURE: Final = "Fix the configuration or the command line that is named."

_MACHINE: Final = (
    _rule(
        DISK,
        r"No space left on device|\bENOSPC\b|[Dd]isk quota exceeded|not enough space on the disk",
        "The disk of the runner is full.",
        _FREE_DISK,
        confidence=0.95,
    ),
    _rule(
        OOM,
        r"JavaScript heap out of memory|java\.lang\.OutOfMemoryError|Out of memory: Kill|\bOOMKilled\b|\boom-kill"
        r"|runtime: out of memory|signal: 9, SIGKILL|\[Killed\]|Killed signal terminated|virtual memory exhausted"
        r"|Cannot allocate memory|std::bad_alloc|\bcc1(?:plus)?: out of memory",
        "The job ran out of memory.",
        _MORE_MEMORY,
    ),
    _rule(
        OOM,
        r"(?:^|[\s:])Killed\b",
        "The job was killed, most likely because it ran out of memory.",
        _MORE_MEMORY,
        exit_codes=(137,),
        confidence=0.85,
    ),
    _rule(
        MISSING_COMMAND,
        r"(?:^|[\s:])(?P<command>[^\s:]{1,200}): (?:command )?not found\s{0,8}$",
        "The command {command} is not installed.",
        _INSTALL,
        exit_codes=(127,),
        confidence=0.95,
    ),
    _rule(
        MISSING_COMMAND,
        r"command not found: (?P<command>\S{1,200})|env: .(?P<other>[^\s/]{1,200}): No such file or directory",
        "A command is not installed: {command}{other}.",
        _INSTALL,
        exit_codes=(127,),
        confidence=0.95,
    ),
    _rule(
        PERMISSION,
        r"(?P<file>[^\s:]{1,300}): Permission denied\s{0,8}$",
        "{file} may not be executed.",
        _RIGHTS,
        exit_codes=(126,),
        confidence=0.95,
    ),
    _rule(
        CONFIGURATION,
        r"Exec format error|cannot execute binary file",
        "A program was built for another kind of machine.",
        "Use a build for the runner's architecture, or send the job to another runner by its labels.",
        exit_codes=(126, 1),
    ),
)

_TESTS: Final = (
    _rule(TEST, r"^FAILED (?P<test>\S{1,300}::[^\n]{1,300}?)(?: - .{0,400})?$", "Test {test} failed.", _READ_TEST),
    _rule(
        TEST, r"^ERROR (?P<test>\S{1,300}(?:::\S{1,300}|\.py))(?: - .{0,400})?$", "{test} could not be run.", _READ_TEST
    ),
    _rule(
        TEST,
        r"^(?:FAIL|ERROR): (?P<test>\w{1,200} \([\w.]{1,300}\))",
        "Test {test} failed.",
        _READ_TEST,
        upshot=r"^[\w.]{0,200}(?:Error|Exception|Failure)(?::|$)",
    ),
    _rule(TEST, r"^\s{0,40}--- FAIL: (?P<test>\S{1,300})", "Test {test} failed.", _READ_TEST, after=3),
    _rule(TEST, r"^test (?P<test>\S{1,300}) \.\.\. FAILED", "Test {test} failed.", _READ_TEST),
    _rule(TEST, r"^\s{0,8}● (?!Console$)(?P<test>\S.{1,300})$", "Test {test} failed.", _READ_TEST, after=4),
    _rule(
        TEST,
        r"^\s{0,8}(?:FAIL|\u00d7) {1,4}(?P<test>\S{1,200}\.(?:test|spec)\.\S.{0,300})$",
        "Test {test} failed.",
        _READ_TEST,
        after=3,
    ),
    _rule(TEST, r"^\s{1,8}(?P<count>\d{1,6}) failing\s{0,8}$", "{count} tests failed.", _READ_TEST, after=6),
    _rule(TEST, r"^rspec (?P<test>\./\S{1,300}:\d{1,6})", "Test {test} failed.", _READ_TEST),
    _rule(TEST, r"^(?P<test>\S{1,200} > .{1,200}) FAILED$", "Test {test} failed.", _READ_TEST, after=2),
    _rule(
        TEST, r"Tests run: \d{1,6}, Failures: (?:[1-9]\d{0,5}|0, Errors: [1-9])", "Tests failed.", _READ_TEST, before=2
    ),
    _rule(TEST, r"^\s{0,8}not ok \d{1,6}(?: -)?(?: (?P<test>.{1,200}))?$", "Test {test} failed.", _READ_TEST, after=3),
    _rule(TEST, r"The following tests FAILED", "Tests failed.", _READ_TEST, after=4),
    _rule(
        TEST,
        r"^FAIL\t\S{1,300}\t\d|^test result: FAILED|^FAILED \((?:failures|errors)|^Tests:? .{0,60}\b[1-9]\d{0,5} failed"
        r"|^=.{0,100}\b[1-9]\d{0,5} (?:failed|errors?)\b.{0,200}=$|\b\d{1,6} examples?, [1-9]\d{0,5} failure"
        r"|^FAILURES!$",
        "Tests failed.",
        _READ_TEST,
        confidence=0.85,
    ),
)

_FORMATS: Final = (
    _rule(FORMAT, r"^[Ww]ould reformat:? (?P<file>\S.{0,300})$", "{file} is not formatted.", _FORMAT, confidence=0.95),
    _rule(FORMAT, r"Wclang-format-violations", "The code is not formatted.", _FORMAT, confidence=0.95),
    _rule(FORMAT, r"^Diff in (?P<file>\S{1,300}\.rs)", "{file} is not formatted.", _FORMAT),
    _rule(
        FORMAT,
        r"\d{1,6} files? would be reformatted|[Cc]ode style issues (?:found|fixed)|Imports are incorrectly sorted",
        "The code is not formatted.",
        _FORMAT,
        before=3,
    ),
)

_TYPES: Final = (
    _rule(TYPE, r"^(?P<place>\S{1,300}\.pyi?:\d{1,7})(?::\d{1,5})?: error: ", "Type error in {place}.", _FIX_TYPES),
    _rule(TYPE, r"^\s{0,8}(?P<place>\S{1,300}\.pyi?:\d{1,7}):\d{1,5} - error: ", "Type error in {place}.", _FIX_TYPES),
    _rule(
        COMPILE,
        r"^(?P<place>\S{1,300}\.[cm]?[jt]sx?[(:]\d{1,7})[,:]\d.{0,20}error TS1\d{3}: ",
        "{place} is no valid TypeScript.",
        _FIX_CODE,
    ),
    _rule(
        TYPE,
        r"^(?P<place>\S{1,300}\.[cm]?[jt]sx?[(:]\d{1,7})[,:]\d.{0,20}error TS\d{1,6}: ",
        "Type error in {place}.",
        _FIX_TYPES,
    ),
    _rule(TYPE, r"^error TS\d{1,6}: ", "The type checker found errors.", _FIX_TYPES),
)

_COMPILERS: Final = (
    _rule(COMPILE, r"^error\[E\d{4}\]: (?P<what>.{1,300})$", "Does not compile: {what}", _FIX_CODE, after=2),
    _rule(
        COMPILE,
        r"^(?P<place>(?:[A-Za-z]:)?[^\s:][^:\n]{0,300}:\d{1,7})(?::\d{1,5})?: (?:fatal )?error: (?P<what>.{1,300})$",
        "{place} does not compile: {what}",
        _FIX_CODE,
        after=2,
    ),
    _rule(
        COMPILE,
        r"^\[ERROR\] (?P<place>\S{1,300}\.(?:java|kt|scala):\[?\d{1,7})",
        "{place} does not compile.",
        _FIX_CODE,
    ),
    _rule(COMPILE, r"^e: (?P<place>\S{1,300}\.kts?:\S{0,30})", "{place} does not compile.", _FIX_CODE),
    _rule(
        COMPILE,
        r"(?P<place>\S{1,300}\(\d{1,7},\d{1,5}\)): error [A-Z]{1,4}\d{2,6}: ",
        "{place} does not compile.",
        _FIX_CODE,
    ),
    _rule(
        COMPILE,
        r"^(?:vet: )?(?P<place>\S{1,300}\.go:\d{1,7}:\d{1,5}): "
        r"(?!.{0,400}(?:dial tcp|proxy\.golang|\([a-z]{2,20}\)$))(?P<what>.{1,300})$",
        "{place} does not compile: {what}",
        _FIX_CODE,
        confidence=0.85,
    ),
    _rule(
        COMPILE,
        r"undefined reference to|ld returned \d|linker command failed|undefined symbol",
        "The program cannot be linked.",
        _FIX_CODE,
        before=1,
    ),
    _rule(
        COMPILE,
        r"^\s{0,40}(?P<what>(?:SyntaxError|IndentationError|TabError)\b.{0,300})$",
        "Does not parse: {what}",
        _FIX_CODE,
        before=3,
    ),
    _rule(
        COMPILE,
        r"^ERROR in (?P<place>\S{1,300})|✘ \[ERROR\] (?P<what>.{1,300})",
        "Does not build: {place}{what}",
        _FIX_CODE,
        after=3,
    ),
    _rule(
        COMPILE,
        r"^error: could not compile (?P<what>\S{1,200})",
        "{what} does not compile.",
        _FIX_CODE,
        before=6,
        confidence=0.85,
    ),
)

_LINTERS: Final = (
    _rule(LINT, r"^(?P<place>\S{1,300}:\d{1,7}:\d{1,5}):? (?P<code>[A-Z]{1,5}\d{2,5}):? ", "{code} in {place}.", _LINT),
    _rule(
        LINT,
        r"^(?P<code>[A-Z]{1,5}\d{3,4}) (?:\[\*\] )?\S.{0,300}$",
        "The linter found {code}.",
        _LINT,
        after=1,
        confidence=0.8,
    ),
    _rule(LINT, r"^\s{1,8}\d{1,7}:\d{1,5}\s{1,8}error\s{1,8}(?P<what>.{1,300})$", "The linter says: {what}", _LINT),
    _rule(
        LINT,
        r"^(?P<place>\S{1,300}\.go:\d{1,7}:\d{1,5}): .{1,300} \((?P<code>[a-z]{2,20})\)$",
        "{code} in {place}.",
        _LINT,
    ),
    _rule(
        LINT, r"-D clippy::|#\[deny\(clippy::|\bclippy::[a-z_]{1,60}\b", "The linter found something.", _LINT, before=4
    ),
    _rule(
        LINT, r"✖ [1-9]\d{0,5} problems? \((?P<count>[1-9]\d{0,5}) errors?", "The linter found {count} errors.", _LINT
    ),
    _rule(
        LINT,
        r"^Found [1-9]\d{0,5} errors?\.$|\bSC\d{4}\b.{0,20}\((?:error|warning)\)",
        "The linter found errors.",
        _LINT,
        before=3,
        confidence=0.7,
    ),
)

_SURROUNDINGS: Final = (
    _rule(
        RATE_LIMIT,
        r"\b429 Too Many Requests|[Tt]oo [Mm]any [Rr]equests|\btoomanyrequests\b|[Rr]ate limit exceeded"
        r"|secondary rate limit|pull rate limit|\b429 Client Error|status(?: code)?:? 429",
        "A service refused more requests for now.",
        _WAIT,
    ),
    _rule(
        DNS,
        r"Could not resolve host|Temporary failure (?:in name resolution|resolving)|Name or service not known"
        r"|getaddrinfo (?:ENOTFOUND|EAI_AGAIN)|\bno such host\b|nodename nor servname provided|Could not resolve '",
        "A name could not be resolved.",
        "Run the job again; if it stays like this, look at the name servers of the runner, and at the name itself.",
    ),
    _rule(
        REGISTRY,
        r"npm (?:ERR!|error) (?:code )?E(?:5\d\d|INTEGRITY)\b|npm (?:ERR!|error) 5\d\d\b|5\d\d Server Error"
        r"|failed to (?:download|fetch|get|query)\b.{0,200}(?:crates|registry|index|dependency)|spurious network error"
        r"|DO NOT MATCH THE HASHES|^E: (?:Failed to fetch|Unable to fetch)|Could not transfer artifact"
        r"|unexpected (?:HTTP )?status(?: code)?:? 5\d\d|reading https://proxy\.golang\.org.{0,200}: 5\d\d"
        r"|Could not (?:GET|HEAD) '|Error response from daemon: .{0,200}(?:manifest|registry|pull)"
        r"|error Couldn't find package .{0,200} registry",
        "A package registry did not deliver.",
        _RETRY_REGISTRY,
        confidence=0.85,
    ),
    _rule(
        NETWORK,
        r"[Cc]onnection (?:refused|reset|timed out|aborted)|\bECONN(?:RESET|REFUSED|ABORTED)\b|\bETIMEDOUT\b"
        r"|i/o timeout|TLS handshake timeout|Network is unreachable|No route to host|\bRPC failed\b|early EOF"
        r"|remote end hung up|SSL_ERROR_SYSCALL|[Rr]ead timed out|ReadTimeoutError|ConnectTimeoutError"
        r"|curl: \((?:5|7|16|18|28|35|52|55|56|92)\)|\b50[234] (?:Bad Gateway|Service Unavailable|Gateway Time)"
        r"|unable to access 'https?|socket hang up",
        "A connection failed.",
        _RETRY,
        confidence=0.75,
    ),
)

_TOOLS: Final = (
    _rule(
        MISSING_COMMAND,
        r"(?:^|[\s:])(?P<command>[^\s:]{1,200}): command not found\s{0,8}$",
        "The command {command} is not installed.",
        _INSTALL,
    ),
    _rule(
        MISSING_COMMAND,
        r"^(?:/bin/)?\w{1,8}: (?:line )?\d{1,6}: (?P<command>[^\s:]{1,200}): not found$",
        "The command {command} is not installed.",
        _INSTALL,
    ),
    _rule(
        MISSING_COMMAND,
        r"exec: \"(?P<command>[^\"\n]{1,200})\": executable file not found|spawn (?P<other>\S{1,200}) ENOENT"
        r"|'(?P<third>[^'\n]{1,200})' is not recognized as an internal"
        r"|make: (?P<fourth>[^\s:]{1,200}): No such file or directory",
        "A command is not installed: {command}{other}{third}{fourth}.",
        _INSTALL,
    ),
    _rule(
        CONFIGURATION,
        r"Could not find a version that satisfies|No matching distribution found"
        r"|npm (?:ERR!|error) (?:code )?(?:E404|ETARGET|ERESOLVE)\b"
        r"|no matching package named|failed to select a version|unknown revision|Could not find artifact"
        r"|frozen-lockfile|npm ci.{0,80} can only install|lock file .{0,80}(?:out of date|needs to be updated)"
        r"|go: updates to go\.mod needed",
        "A dependency cannot be resolved.",
        _DEPENDENCY,
        confidence=0.75,
    ),
    _rule(
        CONFIGURATION,
        r"ModuleNotFoundError: No module named (?P<module>\S{1,200})|Cannot find module (?P<other>'[^'\n]{1,200}')",
        "A module is not installed: {module}{other}.",
        "Declare the dependency, and install it before this step.",
        confidence=0.8,
    ),
    _rule(
        CONFIGURATION,
        r"No rule to make target|[Mm]issing script:"
        r"|(?:unrecognized|unknown|no such|invalid) (?:arguments?|options?|flags?|command|subcommand)\b"
        r"|No such option|Could not open requirements file|go\.mod file not found|cannot find main module"
        r"|could not find `Cargo\.toml`|no such file or directory, open '.{0,200}package\.json"
        r"|Couldn't find a package\.json"
        r"|missing makefile|No targets specified and no makefile|unbound variable|parameter not set",
        "A tool was called or configured wrongly.",
        _CONFIGURE,
        confidence=0.75,
    ),
    _rule(
        PERMISSION,
        r"Permission denied|\bEACCES\b|Operation not permitted|Authentication failed|could not read Username"
        r"|requested access to the resource is denied|\b403 Forbidden|\b401 Unauthorized|\bEPERM\b",
        "Something was not allowed.",
        "Check the rights and credentials that the job has for what is named.",
        confidence=0.7,
    ),
    _rule(
        LOG_LIMIT,
        r"^log limit of \d{1,12} bytes reached",
        "The log reached its limit before the failure was printed.",
        "Let the job print less, or raise the limit of the log.",
        confidence=0.5,
    ),
    _rule(
        UNKNOWN,
        r"^(?P<what>(?:[A-Za-z_][\w.]{0,100}(?:Error|Exception)"
        r"|panic|fatal(?: error)?|FATAL|Error|error)(?:\[\w{1,30}\])?: .{1,300})$",
        "{what}",
        "Read the log above this line.",
        confidence=0.3,
        before=2,
    ),
)

RULES: Final[tuple[Rule, ...]] = (
    *_MACHINE,
    *_TESTS,
    *_FORMATS,
    *_TYPES,
    *_LINTERS,
    *_COMPILERS,
    *_SURROUNDINGS,
    *_TOOLS,
)

# Lines that close every failed log, whatever failed: never evidence.
NOISE: Final[tuple[re.Pattern[str], ...]] = tuple(
    re.compile(expression, re.ASCII)
    for expression in (
        r"^\s{0,40}$",
        r"^==> ",
        r"Process completed with exit code \d",
        r"(?:[Ee]xited|failed|exit) with (?:exit )?(?:code|status) \d{1,3}\.?\s{0,8}$",
        r"^(?:ERROR: )?Job failed\b",
        r"^exit status \d{1,3}$",
        r"^(?:g?make|ninja)(?:\[\d{1,4}\])?: \*\*\* .{0,300}\bError \d{1,3}",
        r"^make: \*\*\* .{0,200}Waiting for unfinished jobs",
        r"^(?:npm|pnpm) (?:ERR!|error) (?:code ELIFECYCLE|errno|A complete log|Lifecycle script|Test failed)",
        r"^(?:npm|pnpm) (?:ERR!|error) (?:Exit status|path|workspace|location|command)",
        r"^npm (?:ERR!|error)\s{0,8}$",
        r"ELIFECYCLE",
        r"^error Command failed with exit code",
        r"^info Visit https://yarnpkg",
        r"^error: test failed, to rerun pass",
        r"^error: aborting due to|^error: process didn't exit successfully",
        r"^For more information about this error",
        r"The command .{1,300} exited with \d{1,3}",
        r"^Cleaning up|^Post job cleanup",
    )
)

# A time that a tool or a proxy put in front of a line, and the marks of other systems; not part of what it says.
PREFIX: Final = re.compile(
    r"^(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?\s{1,4})?(?:##\[error\])?",
    re.ASCII,
)

_AGAIN: Final = (
    "Nothing in the change caused this: it is run again by itself while retries are left; else run it again."
)

# End reasons that say what happened better than any log.
TOLD: Final[dict[EndReason, Told]] = {
    EndReason.JOB_TIMEOUT: Told(
        TIMEOUT, 1.0, "The job took longer than it may.", "Look where it stood, or raise its timeout."
    ),
    EndReason.RUN_TIMEOUT: Told(
        TIMEOUT, 1.0, "The run took longer than it may.", "Look what it waited for, or raise its timeout."
    ),
    EndReason.USER_CANCELED: Told(CANCELED, 1.0, "Somebody canceled it.", "Run it again if it is still wanted."),
    EndReason.CANCEL_DEADLINE: Told(
        CANCELED, 1.0, "It was canceled, and the runner did not obey in time.", "Run it again if it is still wanted."
    ),
    EndReason.SUPERSEDED: Told(
        SUPERSEDED, 1.0, "A newer commit made this superfluous.", "Look at the run of the newer commit."
    ),
    EndReason.CLOSED: Told(
        CANCELED, 1.0, "What it was for is gone: a pull request was closed, a branch deleted.", "Nothing is left to do."
    ),
    EndReason.RUNNER_LOST: Told(RUNNER_LOST, 1.0, "The runner was not heard of any more.", _AGAIN),
    EndReason.NEVER_ACKNOWLEDGED: Told(RUNNER_LOST, 1.0, "The runner took the job and never started it.", _AGAIN),
    EndReason.RUNNER_STOPPED: Told(RUNNER_LOST, 1.0, "The runner was shut down.", _AGAIN),
    EndReason.RESTORED: Told(RUNNER_LOST, 1.0, "The control plane was restored from a backup meanwhile.", _AGAIN),
}

# What an exit code suggests when no line says more.
EXIT_CODES: Final[dict[int, Told]] = {
    124: Told(TIMEOUT, 0.5, "A command was stopped by its own time limit (exit code 124).", "Look at the last lines."),
    126: Told(PERMISSION, 0.6, "A command may not be executed (exit code 126).", _RIGHTS),
    127: Told(MISSING_COMMAND, 0.6, "A command was not found (exit code 127).", _INSTALL),
    134: Told(UNKNOWN, 0.3, "A program aborted (exit code 134).", "Run it locally with a debugger."),
    137: Told(OOM, 0.5, "A process was killed (exit code 137), most likely for want of memory.", _MORE_MEMORY),
    139: Told(
        UNKNOWN, 0.3, "A program crashed (exit code 139, segmentation fault).", "Run it locally with a debugger."
    ),
    143: Told(UNKNOWN, 0.3, "A process was asked to stop (exit code 143).", "Look at what may have stopped it."),
}
