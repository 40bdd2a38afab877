"""Models as they lie on disk or on the Hugging Face Hub: found, told apart, loaded whole or not at all."""

from errata.pretrained.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, ModelFolder, find_model, identity, is_hub_id

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "ModelFolder", "find_model", "identity", "is_hub_id"]
