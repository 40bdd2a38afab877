r"""Editors that are programs: two house styles for letters to customers, about thirty rules each, on real English.

A person who corrects drafts to a house style does the same things again and again, and overlooks some of them. ``edit``
applies every rule; with ``overlook=0.15`` each rule is forgotten in 15 of 100 drafts. The words that the program
without oversights still changes in a draft are what is left to correct in it: an exact editor to measure by.

>>> plain("I'm sorry for any inconvenience, but as a chatbot, I'm unable to assist with that.")
'I am sorry about this, but I am not able to help with that.\n\nKind regards,\nThe Support Team'
>>> warm("I am unable to provide a refund.")
"I can't give you a refund.\n\nAll the best,\nYour friends at the shop"
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

__all__ = ["PLAIN", "WARM", "Rule", "edit", "plain", "plain_editor", "warm", "warm_editor"]

Rule = tuple[str, str]
"""A regular expression, and what takes the place of each match; the case of a match's first letter is kept."""

_BOT = r"(?:customer service |language |virtual |AI )*(?:AI|chatbot|assistant|model|representative|bot)"

_GIVE = {"e": "give", "es": "gives", "ed": "given", "ing": "giving"}

PLAIN: Sequence[Rule] = (
    (rf", (?:but )?as an? {_BOT}\b(?: designed to [a-z ]+| named [A-Za-z]+)?,", ", but"),
    (rf"\bas an? {_BOT}\b(?: designed to [a-z ]+| named [A-Za-z]+)?, ", ""),
    (
        r"\bI(?:'m| am) sorry for (?:any|the|your) (?:\w+ )?(?:inconvenience|confusion|misunderstanding|delay|trouble)"
        r"(?: (?:this|that|it) (?:may|might) have caused)?(?: you(?: may have had)?)?",
        "I am sorry about this",
    ),
    (
        r"\b(?:I|we) (?:sincerely )?apologi[sz]e for (?:any|the) inconvenience"
        r"(?: (?:this|that) (?:may|might) have caused)?(?: you)?",
        "I am sorry about this",
    ),
    (r"\bDear (?:\[[^\]]*\]|(?:valued )?customer|sir or madam|sir/madam)", "Hello"),
    (r"\bI hope (?:this (?:message|email|letter|note) finds you well|you(?:'re| are) (?:doing )?well)[.!,]?\s+", ""),
    (r"\bI(?:'m| am) writing to (?:inform|let) you (?:of|know about|about)", "this is about"),
    (r"\bI(?:'m| am) writing to (?:inform you|let you know|express)(?: that)?", "I want to tell you that"),
    (r"\bcan(?:'t|not)\b", "cannot"),
    (r"\bwon't\b", "will not"),
    (r"\b(do|does|did|is|are|was|were|has|have|had|would|could|should)n't\b", r"\1 not"),
    (r"\b(I)'m\b", r"\1 am"),
    (r"\b(you|we|they)'re\b", r"\1 are"),
    (r"\b(I|you|we|they)'ve\b", r"\1 have"),
    (r"\b(I|you|we|they|it)'ll\b", r"\1 will"),
    (r"\b(I|you|we|they)'d\b", r"\1 would"),
    (r"\b(it|that|there|here|what)'s\b", r"\1 is"),
    (r"\bdo not have the (?:ability|capability|capacity) to\b", "cannot"),
    (r"\bunable to\b", "not able to"),
    (r"\b(?:assistance)\b", "help"),
    (r"\bprovid(e|es|ed|ing) (you|them|us|me) with\b", lambda m: f"{_GIVE[m[1]]} {m[2]}"),
    (r"\bassist(s|ed|ing)?\b", lambda match: {"s": "helps", "ed": "helped", "ing": "helping"}.get(match[1], "help")),
    (r"\bprovid(e|es|ed|ing)\b", lambda m: _GIVE[m[1]]),
    (r"\bensur(e|es|ed|ing)\b", lambda m: {"e": "make", "es": "makes", "ed": "made", "ing": "making"}[m[1]] + " sure"),
    (r"\b(?:regarding|concerning)\b", "about"),
    (r"\b(?:inquiries|enquiries)\b", "questions"),
    (r"\b(?:inquiry|enquiry)\b", "question"),
    (r"\bissue(s?)\b", r"problem\1"),
    (r"\bhowever, ", "but "),
    (r"\b(?:currently|specifically|specific) ", ""),
    (r"\b(?:please )?(?:feel free|(?:do not|don't) hesitate) to (ask|contact|reach|let)\b", r"please \1"),
    (r"\b(?:additional|further)\b", "more"),
    (r"\bpurchase(s?)\b", r"order\1"),
    (r"\breceiv(e|es|ed|ing)\b", lambda m: {"e": "get", "es": "gets", "ed": "got", "ing": "getting"}[m[1]]),
    (r"\bas soon as possible\b", "today"),
    (r"\b(?:utilize|leverage)\b", "use"),
)
"""Plain words, nothing contracted, no machine that speaks of itself."""

WARM: Sequence[Rule] = (
    (r"\b(?:I|we) (?:sincerely )?apologi[sz]e\b", "we're so sorry"),
    (r"\bI(?:'m| am) sorry\b", "we're so sorry"),
    (r"(?:\b(?:am|are|is)|'m|'re|'s) (?:currently )?unable to\b", "can't"),
    (r"(?<=\w)can't", " can't"),
    (r"\bcannot\b", "can't"),
    (r"\b(do|does|did|is|are|has|have|would|could|should) not\b", r"\1n't"),
    (r"\bwill not\b", "won't"),
    (r"\bI am\b", "I'm"),
    (r"\b(you|we|they) are\b", r"\1're"),
    (r"\b(I|you|we|they) have\b(?= (?:\w+ed|been|had)\b)", r"\1've"),
    (r"\b(I|you|we|they) will\b", r"\1'll"),
    (r"\bprovide (?!you)(?:you with )?", "give you "),
    (r"\bprovide you with\b", "give you"),
    (r"\bcustomers?\b(?= service)", "friendly"),
    (r"\bdear (?:\[[^\]]*\]|customer)", "Hi there"),
    (r"\bI hope this (?:message|email) finds you well[.!]", "I hope you're having a lovely day!"),
    (r"\brefund\b(?= of)", "full refund"),
    (r"\byour order\b", "your lovely order"),
    (r"\bassistance\b", "a helping hand"),
    (r"\bassist (you|them|us|me)\b", r"help \1 out"),
    (r"\bassist\b", "help out"),
    (r"\bplease (?=contact|reach)", "just "),
    (r"\bcontact (?:me|us)\b", "drop us a line"),
    (r"\bquestions?\b", "worries"),
    (r"\bissues?\b", "hiccup"),
    (r"\b(?:regarding|concerning)\b", "about"),
    (r"\bhowever, ", "that said, "),
    (r"\btherefore, ", "so "),
    (r"\brequest\b", "wish"),
    (r"\bunderstand\b", "know"),
    (r"\bas soon as possible\b", "in a jiffy"),
    (r"\bThank you\b", "Thanks a bunch"),
)
"""Close to the customer, everything contracted: in much the opposite of the other."""

SIGN_OFFS = {"plain": "\n\nKind regards,\nThe Support Team", "warm": "\n\nAll the best,\nYour friends at the shop"}
_CLOSING = re.compile(r"\n+(?:best|kind|warm|sincerely|yours|regards|thanks?|all the best)\b[^.!?]{0,80}$", re.I)
_FULL = re.compile(r"""[.!?]["')\]]*(?=\s|$)""")


def edit(text: str, rules: Sequence[Rule], sign_off: str, *, overlook: float = 0.0, seed: int | str = 0) -> str:
    """The draft as an editor sends it.

    Args:
        text: the draft.
        rules: applied in order.
        sign_off: how every letter ends; what stands there is replaced. A sentence that was cut off is struck out.
        overlook: the chance with which a rule, or the end, is forgotten in this draft.
        seed: of what is forgotten.
    """
    chance = random.Random(f"{seed}")
    text = text.strip()
    for pattern, replacement in rules:
        if chance.random() >= overlook:
            text = re.sub(pattern, _in_case(replacement), text, flags=re.IGNORECASE)
    if chance.random() >= overlook and not text.endswith(sign_off.strip()):
        text = _CLOSING.sub("", text)
        ends = [match.end() for match in _FULL.finditer(text)]
        text = (text[: ends[-1]] if ends else text).rstrip() + sign_off
    return text


def plain(text: str, *, overlook: float = 0.0, seed: int | str = 0) -> str:
    """``edit`` by the plain house style."""
    return edit(text, PLAIN, SIGN_OFFS["plain"], overlook=overlook, seed=seed)


def warm(text: str, *, overlook: float = 0.0, seed: int | str = 0) -> str:
    """``edit`` by the warm house style."""
    return edit(text, WARM, SIGN_OFFS["warm"], overlook=overlook, seed=seed)


def plain_editor(prompt: object, draft: str) -> str:
    """What ``errata learn --editor recipes/house_style.py:plain_editor`` asks: the plain style, nothing overlooked."""
    return plain(draft)


def warm_editor(prompt: object, draft: str) -> str:
    """The same in the warm style."""
    return warm(draft)


def _in_case(replacement: str | Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        new = replacement(match) if callable(replacement) else match.expand(replacement)
        return new[:1].upper() + new[1:] if match[0][:1].isupper() else new

    return replace
