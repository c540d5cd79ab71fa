"""A Sphinx extension that does not forget a warning.

Sphinx keeps what it has read and reads only changed pages again. A build that failed on a warning would therefore
succeed when repeated, since the page that caused it is not read a second time. (After an exception Sphinx itself
does what is done here.)
"""

from pathlib import Path

from sphinx.application import ENV_PICKLE_FILENAME

__all__ = ["setup"]


def forget_what_failed(app, exception):
    """Makes the next build read every page if a warning has failed this one."""
    if exception is None and app.keep_going and app._warncount:
        (Path(app.doctreedir) / ENV_PICKLE_FILENAME).unlink(missing_ok=True)


def setup(app):
    """Registers the extension."""
    app.connect("build-finished", forget_what_failed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
