"""`deltaci.yaml`: its shape, how it is read, and what it expands to."""

from deltaci.planner.configuration.expansion import FILE, NEEDS_MAX, ConfiguredJob, is_present, load

__all__ = ["FILE", "NEEDS_MAX", "ConfiguredJob", "is_present", "load"]
