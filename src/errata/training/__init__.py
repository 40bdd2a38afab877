"""Training on files: one loop for every loss, what it is told, what is looked at meanwhile, and methods as objects."""

from errata.training.config import OfflineConfig, StepLoss, Tracker, check_tracker
from errata.training.evaluation import NOBODY, Share, Watch, evaluation_of, loss_shares
from errata.training.loop import fit, written_adapter
from errata.training.method import OfflineMethod, Prepared, Reads, Streams, Supervision, run_offline

__all__ = [
    "NOBODY",
    "OfflineConfig",
    "OfflineMethod",
    "Prepared",
    "Reads",
    "Share",
    "StepLoss",
    "Streams",
    "Supervision",
    "Tracker",
    "Watch",
    "check_tracker",
    "evaluation_of",
    "fit",
    "loss_shares",
    "run_offline",
    "written_adapter",
]
