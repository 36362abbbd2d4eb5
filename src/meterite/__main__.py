"""``python -m meterite``, the same as ``meterite``."""

from __future__ import annotations

from meterite.cli.main import main

if __name__ == "__main__":
    main()
