"""errata aligns a language model from the corrections that people make to its answers."""

__version__ = "0.1.0"
