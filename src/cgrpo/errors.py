"""The exceptions that the command line prints as one line, and where a message sends the reader."""

from importlib import metadata


class UserError(Exception):
    """A mistake in the user's input: ``message`` says what is wrong and where, ``cure`` what to type next.

    The command line prints both as one line and exits with code 2. Any other exception that escapes is a bug
    and keeps its traceback. Line breaks and control characters in quoted input are written as escapes.
    """

    def __init__(self, message: str, cure: str = ""):
        super().__init__(one_line(f"{message}; {cure}" if cure else message))


class BrokenPicture(UserError):
    """A sampled picture has values that are not finite."""


def page(name: str) -> str:
    """Where a page such as "reference/data" is: on the site that [project.urls] names, else in the repository."""
    try:
        urls = metadata.metadata("customized-grpo").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        urls = []
    site = dict(url.split(", ", 1) for url in urls).get("Documentation")
    return f"{site.rstrip('/')}/{name}.html" if site else f"docs/{name}.md"


class Stopped(Exception):
    """A run that ended early because of a signal, with its state written. ``code``: 128 and the signal's number."""

    def __init__(self, message: str, number: int):
        super().__init__(one_line(message))
        self.code = 128 + number


def one_line(text: str) -> str:
    r"""``text`` with every character that is not printable, such as a line break, as an escape (\n)."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
