"""Chatter is told from captions."""

import pytest

from cgrpo.data.suspicion import chatter

CHATTER = [
    "let me know if you need any further assistance!",
    "Let me know if you\u2019d like any changes.",
    "feel free to modify these as needed.",
    "I hope this helps!",
    "Sure, here are 10 captions for the red mug:",
    "Here are a few background descriptions:",
    "here's an example prompt",
    "i'm sorry, but i can't help with that.",
    "I cannot create such a picture.",
    "As an AI language model, I do not see pictures.",
    "please provide more details.",
    "Note: each is under ten words.",
    "would you like me to continue?",
    "is there anything else you need?",
    "these prompts show the mug in many places.",
    "assistant: a red mug",
    "...",
]
CAPTIONS = [
    "a red mug with a yellow stripe on a wooden table.",
    "an ok sign painted on a wall, beside a note: 'sure'",
    "a note pinned on a board that says let it be",
    "a captioned photograph of a dog helping a child",
    "a great white shark in the sea",
    "a robot assistant here on earth",
    "the certain death of a vampire, sure to scare",
    "a friend in need of assistance near a help desk",
    "a sloth plushie you would love",
    "I am a wolf plushie",
    "can the teapot be blue?",
    "'a puffin on a rock",
]


@pytest.mark.parametrize("prompt", CHATTER)
def test_chatter(prompt: str) -> None:
    assert chatter(prompt) is not None


@pytest.mark.parametrize("prompt", CAPTIONS)
def test_captions(prompt: str) -> None:
    assert chatter(prompt) is None
