"""``python -m errata`` is ``errata``."""

import sys

if __name__ == "__main__":
    try:
        from errata.cli import script
    except KeyboardInterrupt:
        sys.exit(130)
    script()
