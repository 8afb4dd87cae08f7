"""Delta CI: the control plane. Each core component of the mission is the folder of the same name."""

from typing import Final

VERSION: Final = "0.1.0"
