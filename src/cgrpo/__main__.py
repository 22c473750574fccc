"""``python -m cgrpo``, for launchers such as torchrun."""

import sys

from cgrpo.cli import main

sys.exit(main())
