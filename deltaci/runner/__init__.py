"""The reference runner: a process of its own that leases attempts, executes them and reports what it saw.

User code is executed here and nowhere else. Everything of one runner runs under one user id: jobs can reach what that
user can reach, so one runner is one domain of trust. It imports `protocol` and nothing of the server.
"""

from deltaci.runner.logs import configure_logs
from deltaci.runner.runner import Runner, run
from deltaci.runner.settings import RunnerConfigError, RunnerSettings

__all__ = ["Runner", "RunnerConfigError", "RunnerSettings", "configure_logs", "run"]
