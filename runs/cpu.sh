#!/usr/bin/env bash
# The embedded default on a laptop: minutes, no downloads. Extra arguments go to cgrpo train.
set -euo pipefail
exec cgrpo train toybox "$@"
