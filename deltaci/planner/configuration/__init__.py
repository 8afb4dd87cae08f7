"""`deltaci.yaml`: its shape, how it is read, and what it expands to."""

from deltaci.planner.configuration.expansion import (
    FILE,
    MISNAMED,
    NEEDS_MAX,
    Configuration,
    ConfiguredJob,
    as_written,
    configure,
    is_present,
    load,
)

__all__ = [
    "FILE",
    "MISNAMED",
    "NEEDS_MAX",
    "Configuration",
    "ConfiguredJob",
    "as_written",
    "configure",
    "is_present",
    "load",
]
