"""Training on files: one loop for every loss, what it is told, what is looked at meanwhile, and methods as objects."""

from errata.training.config import OfflineConfig, StepLoss, Tracker, check_tracker
from errata.training.evaluation import NOBODY, Share, Watch, evaluation_of, loss_shares
from errata.training.fit import fit, written_adapter

__all__ = [
    "NOBODY",
    "OfflineConfig",
    "Share",
    "StepLoss",
    "Tracker",
    "Watch",
    "check_tracker",
    "evaluation_of",
    "fit",
    "loss_shares",
    "written_adapter",
]
