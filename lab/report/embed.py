"""What the page carries inside itself: figures as data addresses, and what may run at all."""

import base64
import hashlib
from collections.abc import Sequence
from urllib.parse import quote

from markupsafe import Markup


def picture(svg: bytes) -> Markup:
    """An SVG as the address of an image; nothing in it can end an attribute in double quotes."""
    return Markup("data:image/svg+xml," + quote(svg, safe=" !$()*+,-./:;=>?@[]^_`{|}~'"))


def policy(style: str, scripts: Sequence[str], served: bool = False) -> str:
    """A content security policy under which only this style and these scripts count.

    Args:
        style: The style sheet.
        scripts: All of them.
        served: Whether they may ask the server that the page came from.
    """
    asks = "connect-src 'self'; " if served else ""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {' '.join(map(_hash, scripts))}; {asks}base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
