"""The pages, as bytes, and the headers they go out with.

Guaranteed: no page holds an inline script or names another host; addresses in them are relative, so that they
work below any path.
"""

from __future__ import annotations

from html import escape
from typing import Final

# The exceptions: inline styles (both user interfaces write them), data: images, and ReDoc's search worker.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "strict-origin",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
}


def _page(title: str, head: str, body: str) -> bytes:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        '<link rel="icon" type="image/png" href="static/swagger-ui/favicon-32x32.png">\n'
        f"{head}</head>\n<body>\n{body}</body>\n</html>\n"
    ).encode()


def _drop_token(api_key_name: str) -> str:
    return (
        f'<meta name="token-parameter" content="{escape(api_key_name)}">\n'
        '<script src="static/address.js"></script>\n'
    )


def swagger_page(title: str, api_key_name: str) -> bytes:
    return _page(
        title,
        _drop_token(api_key_name) + '<link rel="stylesheet" href="static/swagger-ui/swagger-ui.css">\n',
        '<div id="swagger-ui"></div>\n<script src="static/swagger-ui/swagger-ui-bundle.js"></script>\n'
        '<script src="static/swagger.js"></script>\n',
    )


def redoc_page(title: str, api_key_name: str) -> bytes:
    return _page(
        title,
        _drop_token(api_key_name) + "<style>body { margin: 0 }</style>\n",
        '<div id="redoc"></div>\n<script src="static/redoc/redoc.standalone.js"></script>\n'
        '<script src="static/redoc.js"></script>\n',
    )


def up_page(title: str, api_key_name: str, *, docs: bool) -> bytes:
    where = (
        f"<p>The documentation is at <code>docs?{escape(api_key_name)}=</code> and your token; once it was opened so, "
        'this browser may go to <a href="docs">docs</a> and <a href="redocs">redocs</a> '
        'until you <a href="logout">log out</a>.</p>\n'
        if docs
        else ""
    )
    return _page(title, "", f"<h1>{escape(title)}</h1>\n<p>The service is up.</p>\n{where}")


def token_page(title: str, api_key_name: str) -> bytes:
    """What a browser without a token is shown. It may be shown at any address, so nothing in it is relative."""
    name = escape(api_key_name)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n</head>\n'
        f"<body>\n<h1>{escape(title)}</h1>\n<p>This place needs a token.</p>\n"
        f"<p>To open the documentation, go to <code>/docs?{name}=</code> and your token. Programs send it in the "
        f"header <code>{name}</code>.</p>\n</body>\n</html>\n"
    ).encode()
