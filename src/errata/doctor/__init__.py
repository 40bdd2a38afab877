"""What will the loss really see? Of errata's own pipeline, or of anybody's collator, packer, loss or head."""

from errata.doctor.batches import BatchReport, check_batch
from errata.doctor.callables import check_end_read, check_loss, check_padding, check_reward_reload
from errata.doctor.examination import ModelFacts, examine, read_model_facts
from errata.doctor.findings import Diagnosis, Finding, Severity
from errata.doctor.show import diagnosis_to_terminal
from errata.doctor.streams import Feature, Method, features_of, streams_of
from errata.doctor.units import UnitDifferences, unit_differences

__all__ = [
    "BatchReport",
    "Diagnosis",
    "Feature",
    "Finding",
    "Method",
    "ModelFacts",
    "Severity",
    "UnitDifferences",
    "check_batch",
    "check_end_read",
    "check_loss",
    "check_padding",
    "check_reward_reload",
    "diagnosis_to_terminal",
    "examine",
    "features_of",
    "read_model_facts",
    "streams_of",
    "unit_differences",
]
