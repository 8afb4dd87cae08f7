"""Reports of tests: a job that writes some keeps them, so that they can be read when it is over."""

from typing import Final

import msgspec

from deltaci.domain.plan import Artifact, PlannedJob

ARTIFACT: Final = "reports"


def kept(job: PlannedJob) -> PlannedJob:
    """`job` with its reports among its artifacts; as it is, if it has none or an artifact of that name already."""
    if not job.reports or any(artifact.name == ARTIFACT for artifact in job.artifacts):
        return job
    return msgspec.structs.replace(job, artifacts=(*job.artifacts, Artifact(name=ARTIFACT, paths=job.reports)))
