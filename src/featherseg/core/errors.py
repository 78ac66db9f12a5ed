"""The two ways in which a command ends without its result, each with one sentence for the reader."""


class UserError(Exception):
    """Input that cannot be worked with.

    The message is one clear sentence: what is wrong, where (file, key, row) and what to do. The command
    line prints it and exits with status 1, without a traceback.
    """


class NotRun(Exception):
    """Data or weights that are missing here: a result, not a failure.

    A stage that meets it writes `status.json` with the reason and succeeds, so that the rest of the
    pipeline goes on and the table says why the row is empty.
    """
