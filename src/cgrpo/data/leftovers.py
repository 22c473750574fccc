"""What a chat model says beside its answer, when it was asked for prompts and its whole reply was kept.

Of 6,924 published SynCD prompts, 99 are such leftovers ("let me know if you need any further assistance!").
The phrases below are ours, chosen so that no ordinary caption is taken for one, so some leftovers may stay.
"""

from __future__ import annotations

import re

_KINDS = "(prompts?|captions?|descriptions?)"
_ANYWHERE = (
    r"let me know (if|when|what|whether|how)\b",
    r"\b(further|additional|any other|more|any) (assistance|help|questions|revisions|modifications|changes)\b",
    r"\bfeel free to\b",
    r"\b(hope|hoping) (this|these|that|it|they) (help|meet|work|satisf|suit|fit|match)",
    r"\bas an? (ai|artificial intelligence|(large )?language model)\b",
    r"\bis there anything else\b",
    r"\b(happy|glad|here) to (help|assist)\b",
    r"\byou('d| would) like (me to|more|any|some|additional|further)\b",
    rf"\b(these|those|above|following|given|provided) (\w+ )?{_KINDS}\b",
    rf"\b{_KINDS} (for|based on|that|describing|featuring) (the|your|each|an?)\b",
    r"\b(the|your) (request|instructions?|guidelines|requirements|criteria)\b",
    r"\b(sorry|apologi[sz]e),? (but|for|i)\b",
    r"\bi (can't|cannot|can not|won't|(a|')m (unable|not able)) ",
    r"\bplease (provide|specify|clarify|note that|find below)\b",
)
_OPENINGS = (
    r"(sure|certainly|absolutely|of course|great|okay|ok|no problem|you're welcome|thanks|thank you)\s*([!,.:]|$)",
    rf"here (are|is) (\w+ )*({_KINDS}|examples?|scenes?|backgrounds?|sentences?|options?)\b",
    rf"here's (your|my|an? (example|list|{_KINDS}))\b",
    r"i('m| am) (sorry|unable|glad|happy|here|an ai)\b",
    r"i('ll| will) (provide|generate|create|help|give|try|make|write)\b",
    r"i('ve| have) (provided|generated|created|included|listed|tried|written|made)\b",
    r"i (hope|apologi[sz]e|understand)\b",
    r"note\s*:",
    r"(if|do|would|could|can) you (like|want|need|have|would|prefer|please)\b",
    r"(user|assistant|system|human)\s*:",
    r"$",
)
_LEFTOVER = re.compile("|".join(_ANYWHERE) + r"|^\W*(?:" + "|".join(_OPENINGS) + ")", re.IGNORECASE)


def leftover(prompt: str) -> str | None:
    """The words that give a prompt away as chatter, or None for an ordinary one. "" is a prompt without words."""
    found = _LEFTOVER.search(prompt.replace("\u2019", "'"))
    return found.group().strip() if found else None
