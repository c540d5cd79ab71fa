"""A Sphinx extension that shows no button which leads nowhere.

Until a publisher has run ``make repository``, the book has no address to link to; and Colab opens notebooks from
GitHub only.
"""

__all__ = ["setup"]


def keep_what_works(app, config):
    """Drops the buttons that the repository's address cannot serve."""
    options = config.html_theme_options
    if ".invalid/" in options["repository_url"]:
        for button in ("use_repository_button", "use_issues_button"):
            options[button] = False
        del options["repository_url"]
    if not options.get("repository_url", "").startswith("https://github.com/"):
        options["launch_buttons"] = {}


def setup(app):
    """Registers the extension."""
    app.connect("config-inited", keep_what_works)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
