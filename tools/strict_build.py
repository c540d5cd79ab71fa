"""A Sphinx extension that lets no fault pass: a picture without words, or a warning that was given before.

A picture that does not say what it shows is a warning, which fails the build.

Sphinx keeps what it has read and reads only changed pages again. A build that failed on a warning would therefore
succeed when repeated, since the page that caused it is not read a second time. (After an exception Sphinx itself
does what is done here.)
"""

from pathlib import Path

from docutils import nodes
from sphinx.application import ENV_PICKLE_FILENAME
from sphinx.util import logging

__all__ = ["setup"]

logger = logging.getLogger(__name__)


def want_words(app, document, name):
    """Warns of each picture without a text for those who do not see it."""
    for image in document.findall(nodes.image):
        if not image.get("alt", "").strip():
            logger.warning("a picture without alt text: %s", image.get("uri"), location=image, type="scorebook")


def forget_what_failed(app, exception):
    """Makes the next build read every page if a warning has failed this one."""
    if exception is None and app.keep_going and app._warncount:
        (Path(app.doctreedir) / ENV_PICKLE_FILENAME).unlink(missing_ok=True)


def setup(app):
    """Registers the extension."""
    app.connect("doctree-resolved", want_words)
    app.connect("build-finished", forget_what_failed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
