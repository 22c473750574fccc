"""From Python: train on the built-in toy dataset, read the numbers, generate images with the result.

    python examples/quickstart.py [KEY=VALUE]...

It takes about five minutes on two CPU cores. Settings such as training.iterations=10 make it shorter.
"""

import json
import sys
from pathlib import Path

import cgrpo
from cgrpo.data import ToyboxSource

run = cgrpo.train(cgrpo.load_config("toybox", sys.argv[1:]), Path("outputs/quickstart"))

summary = json.loads((run / "summary.json").read_text())
for name, row in summary["metrics"].items():
    print("{}: {base:.3f} -> {trained:.3f}, change in [{low:+.3f}, {high:+.3f}]".format(name, **row))

task = ToyboxSource(seed=0, split="test").batch([0])
task.references[0][0].save(run / "reference.png")
images = cgrpo.sample(run, reference=[run / "reference.png"], prompts=task.prompts, out=run / "images")
print(*images, sep="\n")
