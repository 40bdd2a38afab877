"""One way to talk to a chat model, behind an API or in this process; editors and judges use it."""

from errata.client.chat import Answer, Ask, Chat, Stop
from errata.client.check import Finding, check_server
from errata.client.connection import check_chat, connect, open_chat
from errata.client.engine import DryRun, Engine, Limits
from errata.client.ledger import Ledger, Spent
from errata.client.prices import Price, price_of, total_cost

__all__ = [
    "Answer",
    "Ask",
    "Chat",
    "DryRun",
    "Engine",
    "Finding",
    "Ledger",
    "Limits",
    "Price",
    "Spent",
    "Stop",
    "check_chat",
    "check_server",
    "connect",
    "open_chat",
    "price_of",
    "total_cost",
]
