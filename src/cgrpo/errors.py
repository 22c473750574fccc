"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """A mistake in the user's input: one line that says what, where, and how to mend it.

    The command line prints the message as one line and exits with code 2. Anything else that
    escapes is a bug and keeps its traceback. What it quotes of the input may hold line breaks or
    a terminal's control codes: they are written out.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


class BrokenPicture(UserError):
    """What was sampled is no picture; the policy went through all of its steps before that came out."""


def one_line(text: str) -> str:
    r"""``text`` with every character that is not printed as it stands, such as a line break, as an escape (\n)."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
