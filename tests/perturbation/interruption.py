"""A run that is told when to stop."""


class Interrupted(Exception):
    pass


def recording(calls, stop=None):
    """Progress that notes what it is told; at `stop` units done it interrupts the run."""

    def progress(done, total):
        calls.append((done, total))
        if stop is not None and done >= stop:
            raise Interrupted

    return progress
