"""Runs: files that are whole or not there, folders of one run each, what tells one run from another, and locks.

It imports neither torch nor anything else of errata; ``errata.runs.schedule`` runs stages in several processes.
"""

from errata.runs.disk import NotWritten, writing
from errata.runs.files import new_file, new_folder, read_json, read_record, write_json
from errata.runs.folder import CARD, RunFolder, StageFolder, changed_settings, claim_folder
from errata.runs.identity import HOW_TO_NAME, fingerprint_of, identity_of, named
from errata.runs.lock import InUse, locked, writes_out
from errata.runs.metrics import Metrics
from errata.runs.sums import SUMS, Damaged, check_sealed, check_sums, digest, seal, sums_of, write_sums

__all__ = [
    "CARD",
    "HOW_TO_NAME",
    "SUMS",
    "Damaged",
    "InUse",
    "Metrics",
    "NotWritten",
    "RunFolder",
    "StageFolder",
    "changed_settings",
    "check_sealed",
    "check_sums",
    "claim_folder",
    "digest",
    "fingerprint_of",
    "identity_of",
    "locked",
    "named",
    "new_file",
    "new_folder",
    "read_json",
    "read_record",
    "seal",
    "sums_of",
    "write_json",
    "write_sums",
    "writes_out",
    "writing",
]
