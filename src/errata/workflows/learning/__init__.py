"""``errata learn``, stage by stage."""

from errata.workflows.learning.settings import LearnConfig, LearnDetails, NotSafe, Waiting
from errata.workflows.learning.whole import learn

__all__ = ["LearnConfig", "LearnDetails", "NotSafe", "Waiting", "learn"]
