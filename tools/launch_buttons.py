"""A Sphinx extension that shows no button which leads nowhere.

Until a publisher has run ``make repository``, the book has no address to link to; and Colab opens notebooks from
GitHub only. From an address on GitHub follows that of the published pages, which a card in a social network needs.
"""

import re

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


def tell_where_it_is_published(app, config):
    """Sets the address of the pages, if GitHub serves them: a card's picture must be named in full."""
    place = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+?)/?", config.html_theme_options.get("repository_url", ""))
    if place and not config.ogp_site_url:
        host = f"{place[1].lower()}.github.io"
        # The repository that is named like the host is served at its root.
        config.ogp_site_url = f"https://{host}/" + ("" if place[2].lower() == host else f"{place[2]}/")


def setup(app):
    """Registers the extension."""
    app.setup_extension("sphinxext.opengraph")
    app.connect("config-inited", keep_what_works)
    app.connect("config-inited", tell_where_it_is_published)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
