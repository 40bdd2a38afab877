"""Models as they lie on disk or on the Hugging Face Hub: found, told apart, loaded whole or not at all."""

from errata.pretrained.folder import ModelFolder, find_model, identity, is_hub_id

__all__ = ["ModelFolder", "find_model", "identity", "is_hub_id"]
