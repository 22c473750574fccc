"""A whole checkpoint with an adapter merged in."""

from __future__ import annotations

from pathlib import Path

from cgrpo.errors import UserError
from cgrpo.files import whole_folder
from cgrpo.hub import locate
from cgrpo.policies.adapters.exchange import check_start, known_origin
from cgrpo.policies.adapters.files import Origin, check_origin, read_split
from cgrpo.policies.adapters.layers import merge_pairs, merge_start
from cgrpo.policies.build import family_of
from cgrpo.policies.family import refuse_other_family
from cgrpo.policies.fingerprint import transformer_fingerprint
from cgrpo.policies.lora import LoraPolicy
from cgrpo.policies.settings import PolicySettings


def merge_adapter(file: str | Path, settings: PolicySettings, out_folder: str | Path) -> Path:
    """Write the whole checkpoint with the adapter merged in, as a diffusers folder that needs nothing of ours.

    ``settings`` name the base, and the start that was merged into it before training, where there was one.
    Every weight keeps its precision (8 bits, which can't hold the sum, become bfloat16 where the adapter adds to them);
    the other parts of a folder are copied as they are. Raises UserError if the pieces don't belong together.
    """
    family = family_of(settings)
    if not issubclass(family, LoraPolicy):
        raise UserError(f"{settings.path}: adapters of this family can't be merged")
    split, header = read_split(file, family.layout())
    origin = known_origin(file, header)
    start = locate(settings.start, "file") if settings.start and settings.start_mode == "merge" else None
    if (origin.start_mode == "merge") != (start is not None):
        cure = "set policy.start to it" if start is None else "leave policy.start out"
        with_start = "a" if start is None else "no"
        raise UserError(f"{file}: trained on a base with {with_start} start merged in", cure)
    folder = Path(out_folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give a new folder")
    transformer = family.load_transformer(settings, None)
    refuse_other_family(file, split, family.layout())
    here = Origin(settings.path, transformer_fingerprint(transformer))
    if start is not None:
        check_start(start, read_split(start)[0], file, origin)
        here = Origin(here.base, here.base_hash, merge_start(transformer, start, family.layout()), "merge")
    check_origin(file, header, here, settings.base_differs)
    merge_pairs(transformer, split, file)
    with whole_folder(folder) as partial:
        family.save_whole(settings, transformer, partial)
    return folder
