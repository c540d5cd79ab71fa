"""What several workers of a test run need and one of them makes."""

import fcntl


def once(run, stamp, make):
    """Does something once in a test run, however many workers ask for it, which wait for the one that does it.

    Args:
        run: a name of the test run, or None if it has one process.
        stamp: a file, in which the last run that has succeeded is named.
        make: what to do.
    """
    stamp.parent.mkdir(exist_ok=True)
    with stamp.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if run is None or file.read() != run:
            file.truncate(0)
            make()
            file.write(run or "")
