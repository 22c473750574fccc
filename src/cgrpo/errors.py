"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """A mistake in the user's input: one line that says what, where, and how to mend it.

    The command line prints the message as one line and exits with code 2. Anything else that
    escapes is a bug and keeps its traceback.
    """


class BrokenPicture(UserError):
    """What was sampled is no picture; the policy went through all of its steps before that came out."""
