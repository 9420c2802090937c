"""The logger of the library: silent unless the program that uses it says otherwise.

logging.getLogger("iqrun").setLevel(logging.DEBUG)
"""

from __future__ import annotations

import logging

logger = logging.getLogger("iqrun")
logger.addHandler(logging.NullHandler())
