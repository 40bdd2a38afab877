"""One way to talk to a chat model, behind an API or in this process; editors and judges use it."""

from errata.client.chat import Answer, Ask, Chat, Stop

__all__ = ["Answer", "Ask", "Chat", "Stop"]
