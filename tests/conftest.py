"""What must be set before torch is imported, and `support` imports under any of pytest's modes."""

import os
import sys
from pathlib import Path

# Workers share the cores, and so do the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where ATen is told to do without AVX-512, oneDNN must be, too: attention in bfloat16 fails where they disagree, which
# no real machine does.
LEAST = {"default": "SSE41", "avx2": "AVX2"}
if (told := os.environ.get("ATEN_CPU_CAPABILITY")) in LEAST:
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", LEAST[told])

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
