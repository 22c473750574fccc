"""A reward of your own: watched here, or trained on in place of the built-in one of its name.

    python -m cgrpo train --set rewards.saturation.type=examples.custom_reward:saturation     # watched only
    python -m cgrpo train --set rewards.prompt.type=examples.custom_reward:saturation         # trained on

Run from the folder that holds ``examples``: ``python -m`` finds modules in the folder that one is in, the command
``cgrpo`` alone does not (it finds what is installed, or on PYTHONPATH).
"""

import numpy as np
from PIL import Image

from cgrpo.types import Batch


def saturation(pictures: list[Image.Image], batch: Batch) -> list[float]:
    """Mean HSV saturation in [0, 1] of each picture; NaN would mean "could not be scored"."""
    return [float(np.asarray(picture.convert("HSV"))[..., 1].mean() / 255) for picture in pictures]
