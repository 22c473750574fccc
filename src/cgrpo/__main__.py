"""``python -m cgrpo``, for launchers such as torchrun."""

import sys

from cgrpo.app.main import main

sys.exit(main())
