"""The store of encodings: what is read back is what was made, nothing is made twice, nothing foreign is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.encodings.latents import LatentCodec
from cgrpo.policies.encodings.preprocess import prepare_references
from cgrpo.policies.encodings.store import Encoded, EncodingStore, StoredPrompts, encode_batches
from cgrpo.policies.flux.inputs import FluxPrompts
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

DEPENDS = {
    "clip": "1", "clip_tokenizer": "2", "clip_length": 10, "t5": "3", "t5_tokenizer": "4", "t5_length": 12,
    "autoencoder": "5", "reference_rule": "uno", "reference_size": 32, "reference_latents": "mean",
    "dtype": "float32",
}  # fmt: skip
PREPARE = partial(prepare_references, rule="uno", one_size=32, several_size=0, multiple=8)


def picture(seed: int, width: int = 32, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def tasks(*rows: tuple[str, Image.Image]) -> Batch:
    ids = tuple(str(i) for i in range(len(rows)))
    return Batch(ids, tuple(text for text, _ in rows), tuple((image,) for _, image in rows), ("cube",) * len(rows))


# Three prompts and four pictures (two sizes within the second batch), some more than once.
BATCHES = [
    tasks(("a red cube", picture(1)), ("a blue ball", picture(2)), ("a red cube", picture(1))),
    tasks(("a green cube", picture(3, 24, 32)), ("a blue ball", picture(4))),
]


class Counted:
    """A prompt encoder and a codec that count, and can be killed."""

    def __init__(self, policy: FluxPolicy, calls: int = 1000):
        assert isinstance(policy.prompts, FluxPrompts) and policy.codec is not None
        self.encoder, self.calls = policy.prompts, calls
        self.modules = self.encoder.modules
        self.prompts: list[str] = []
        self.codec = LatentCodec(policy.codec.vae)
        self.pictures, encode = 0, self.codec.encode

        def counted(pictures: Sequence[Image.Image]) -> Tensor:
            self.pictures += len(pictures)
            return encode(pictures)

        self.codec.encode = counted

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if len(self.prompts) >= self.calls:
            raise KeyboardInterrupt
        self.prompts += prompts
        return self.encoder.encode(prompts)

    def fill(self, folder: Path, batches: Sequence[Batch] = BATCHES) -> Encoded:
        return encode_batches(batches, self, self.codec, EncodingStore.create(folder, DEPENDS), PREPARE)


def others_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".safetensors", ".json")]


def test_stored_equals_direct(tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    batch = BATCHES[0].select(slice(0, 2))
    assert tiny_policy.codec is not None and tiny_policy.prompts is not None
    store = EncodingStore.create(tmp_path / "store", DEPENDS)
    encode_batches([batch], tiny_policy.prompts, tiny_policy.codec, store, PREPARE)

    opened = EncodingStore.open(tmp_path / "store", DEPENDS)
    repeated = ["a blue ball", "a red cube", "a blue ball"]
    alone = [tiny_policy.prompts.encode([prompt]) for prompt in repeated]
    for made, stored in zip(zip(*alone, strict=True), StoredPrompts(opened).encode(repeated), strict=True):
        assert torch.equal(torch.cat(made), stored) and made[0].dtype == stored.dtype
    pictures = [PREPARE(images)[0] for images in batch.references]
    direct = torch.cat([tiny_policy.codec.encode([one]) for one in pictures])
    assert torch.equal(LatentCodec(tiny_policy.codec.vae, store=opened).encode(pictures), direct)
    assert not torch.equal(direct[0], direct[1])


def test_bf16_and_rows_of_a_batch_survive(tmp_path: Path) -> None:
    store = EncodingStore.create(tmp_path, DEPENDS)
    text_NLC, pooled_NC = torch.randn(3, 4, 5).bfloat16(), torch.randn(3, 6).bfloat16()
    store.put_text("b", text_NLC[1], pooled_NC[1])
    text_LC, pooled_C = store.text("b")
    assert torch.equal(text_LC, text_NLC[1]) and torch.equal(pooled_C, pooled_NC[1])
    (path,) = (tmp_path / "text").iterdir()
    assert path.stat().st_size < 400  # 52 bytes of numbers, not the batch's


def test_a_policy_takes_stored_prompts(tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    batch = BATCHES[0]
    assert tiny_policy.codec is not None and tiny_policy.prompts is not None
    store = EncodingStore.create(tmp_path, DEPENDS)
    encode_batches([batch], tiny_policy.prompts, tiny_policy.codec, store, PREPARE)
    codec = LatentCodec(tiny_policy.codec.vae, store=store)
    stored = FluxPolicy(
        tiny_policy.transformer,
        codec,
        StoredPrompts(store),  # pyright: ignore
        PolicySettings(height=32, width=48, reference_size=32),
    )
    direct, read = tiny_policy.encode(batch), stored.encode(batch)
    for name in ("text_NLC", "pooled_NC", "reference_NLC", "ids_LD"):
        assert torch.allclose(getattr(direct, name), getattr(read, name), atol=1e-5), name


def test_each_is_made_once(tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    first = Counted(tiny_policy)
    assert first.fill(tmp_path) == Encoded(texts_made=3, texts_kept=0, references_made=4, references_kept=0)
    assert sorted(first.prompts) == ["a blue ball", "a green cube", "a red cube"] and first.pictures == 4

    again = Counted(tiny_policy)
    assert again.fill(tmp_path) == Encoded(texts_made=0, texts_kept=3, references_made=0, references_kept=4)
    assert again.prompts == [] and again.pictures == 0

    more = Counted(tiny_policy)
    grown = [*BATCHES, tasks(("a ball in the snow", picture(1)))]
    assert more.fill(tmp_path, grown) == Encoded(texts_made=1, texts_kept=3, references_made=0, references_kept=4)
    assert more.prompts == ["a ball in the snow"]


def test_progress(tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    counted, done = Counted(tiny_policy), []
    encode_batches(BATCHES, counted, counted.codec, EncodingStore.create(tmp_path, DEPENDS), PREPARE, done.append)
    assert done == [3, 5] and len(counted.prompts) == 3


class Grouped:
    """Encoders whose numbers depend on how many go through together, as a CPU's or GPU's kernels may in the last bit.

    A prompt's number counts its letters, a picture's is its first level; 1000 is added for each neighbour.
    """

    modules = ()
    posterior = "mean"

    def encode(self, items: Sequence[Any]) -> Any:
        base = [len(item) if isinstance(item, str) else item.getpixel((0, 0))[0] for item in items]
        numbers_N = torch.tensor(base, dtype=torch.float32) + 1000 * (len(items) - 1)
        if isinstance(items[0], str):
            return numbers_N[:, None, None], numbers_N[:, None].clone()
        return numbers_N[:, None, None, None]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_what_is_stored_does_not_depend_on_its_neighbours(tmp_path: Path, size: int) -> None:
    rows = [("a " * seed + "cube", picture(seed)) for seed in range(1, 8)]
    batches = [tasks(*rows[at : at + size]) for at in range(0, len(rows), size)]
    store = EncodingStore.create(tmp_path, DEPENDS)
    encode_batches(batches, Grouped(), Grouped(), store, PREPARE)  # pyright: ignore
    for prompt, image in rows:
        assert store.text(prompt)[0].item() == store.text(prompt)[1].item() == len(prompt)
        (prepared,) = PREPARE([image])
        latent_CHW = store.reference(prepared)
        assert latent_CHW is not None and latent_CHW.item() == prepared.getpixel((0, 0))[0]


@pytest.mark.parametrize("held", [0, 1, 6])
def test_latents_do_not_depend_on_what_the_store_lacks(tiny_policy: FluxPolicy, tmp_path: Path, held: int) -> None:
    assert tiny_policy.codec is not None
    plain, pictures = LatentCodec(tiny_policy.codec.vae), [picture(seed) for seed in range(7)]
    alone = [plain.encode([image])[0] for image in pictures]
    store = EncodingStore.create(tmp_path, DEPENDS)
    for image, latent_CHW in zip(pictures[:held], alone[:held], strict=True):
        store.put_reference(image, latent_CHW)
    assert torch.equal(LatentCodec(tiny_policy.codec.vae, store=store).encode(pictures), torch.stack(alone))


@pytest.mark.parametrize(
    "calls,counts", [(1, Encoded(texts_made=2, texts_kept=1, references_made=4)), (2, Encoded(1, 2, 2, 2))]
)
def test_a_killed_run_continues(tiny_policy: FluxPolicy, tmp_path: Path, calls: int, counts: Encoded) -> None:
    with pytest.raises(KeyboardInterrupt):
        Counted(tiny_policy, calls).fill(tmp_path)
    (tmp_path / "text" / ".aa.safetensors.0.partial").write_bytes(b"half")  # killed while writing
    resumed = Counted(tiny_policy)
    assert resumed.fill(tmp_path) == counts
    assert resumed.prompts == ["a red cube", "a blue ball", "a green cube"][calls:]
    whole = Counted(tiny_policy)
    whole.fill(tmp_path.with_name("whole"))
    for path in tmp_path.with_name("whole").rglob("*.safetensors"):
        assert (tmp_path / path.parent.name / path.name).read_bytes() == path.read_bytes()


def test_a_killed_first_write_leaves_a_folder_to_fill(tmp_path: Path) -> None:
    (tmp_path / ".index.json.0.partial").write_text("{")
    EncodingStore.create(tmp_path, DEPENDS)


def test_several_write_at_once(tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    def fill(_: int) -> Encoded:
        return Counted(tiny_policy).fill(tmp_path / "store")

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(fill, range(4)))
    assert all(count.texts_made + count.texts_kept == 3 for count in counts)
    assert others_in(tmp_path) == []
    store = EncodingStore.open(tmp_path / "store", DEPENDS)
    assert store.text("a red cube")[0].shape == (12, 24)
    assert len(list((tmp_path / "store" / "references").iterdir())) == 4


# Refusals


@pytest.mark.parametrize(
    "change,told",
    [
        ({"t5": "9"}, "t5 3 instead of 9"),
        ({"clip_tokenizer": "9"}, "clip tokenizer 2 instead of 9"),
        ({"autoencoder": "9"}, "autoencoder 5 instead of 9"),
        ({"reference_rule": "kontext"}, "reference rule uno instead of kontext"),
        ({"reference_size": 64}, "reference size 32 instead of 64"),
        ({"reference_latents": "sample"}, "reference latents mean instead of sample"),
        ({"dtype": "bfloat16", "t5_length": 512}, "t5 length 12 instead of 512, dtype float32 instead of bfloat16"),
    ],
)
def test_another_making_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    EncodingStore.create(tmp_path, DEPENDS)
    for enter in (EncodingStore.open, EncodingStore.create):
        with pytest.raises(UserError, match=told) as caught:
            enter(tmp_path, DEPENDS | change)
        assert str(tmp_path) in str(caught.value) and "cgrpo data encode" in str(caught.value)
        assert "\n" not in str(caught.value)
    EncodingStore.open(tmp_path, DEPENDS)  # it was left as it was


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store of encodings.*cgrpo data encode"):
        EncodingStore.open(tmp_path / "none", DEPENDS)
    assert not (tmp_path / "none").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="thesis.tex.*empty folder"):
        EncodingStore.create(tmp_path, DEPENDS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="thesis.tex: can.t be written"):
        EncodingStore.create(tmp_path / "thesis.tex", DEPENDS)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"clip": "1"}'])
def test_a_broken_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    for enter in (EncodingStore.open, EncodingStore.create):
        with pytest.raises(UserError, match="index.json"):
            enter(tmp_path, DEPENDS)


def test_a_missing_prompt_is_named(tmp_path: Path) -> None:
    prompts = StoredPrompts(EncodingStore.create(tmp_path, DEPENDS))
    with pytest.raises(UserError, match="a red ball.*cgrpo data encode") as caught:
        prompts.encode(["a red\nball"])
    assert "\n" not in str(caught.value)


def test_a_missing_reference_is_encoded(tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    """The autoencoder is in memory anyway, to decode."""
    assert tiny_policy.codec is not None
    store = EncodingStore.create(tmp_path, DEPENDS)
    store.put_reference(picture(1), torch.full((8, 6, 8), 7.0))
    codec = LatentCodec(tiny_policy.codec.vae, store=store)
    latents = codec.encode([picture(2), picture(1), picture(3)])
    assert (latents[1] == 7).all()
    assert torch.equal(latents[[0]], tiny_policy.codec.encode([picture(2)]))
    assert torch.equal(latents[[2]], tiny_policy.codec.encode([picture(3)]))
    assert torch.equal(codec.encode([picture(1)])[0], latents[1])


@pytest.mark.parametrize("harm", ["cut", "rubbish", "other"])
def test_a_corrupted_entry_is_named(tmp_path: Path, harm: str) -> None:
    store = EncodingStore.create(tmp_path, DEPENDS)
    store.put_text("a", torch.zeros(3, 4), torch.zeros(5))
    store.put_reference(picture(1), torch.zeros(8, 6, 8))
    (text,), (reference,) = (tmp_path / "text").iterdir(), (tmp_path / "references").iterdir()
    content = text.read_bytes(), reference.read_bytes()
    for path, own, other in ((text, *content), (reference, *content[::-1])):
        path.write_bytes({"cut": own[:-9], "rubbish": b"\0" * 40, "other": other}[harm])
        with pytest.raises(UserError, match=path.name) as caught:
            store.text("a") if path == text else store.reference(picture(1))
        assert "delete it and run cgrpo data encode" in str(caught.value) and "\n" not in str(caught.value)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EncodingStore.create(tmp_path, DEPENDS)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="can't be written .No space left"):
        store.put_text("a", torch.zeros(3, 4), torch.zeros(5))
    assert others_in(tmp_path) == []


def test_stored_samples_equal_direct(tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    assert tiny_policy.codec is not None and tiny_policy.prompts is not None
    codec = LatentCodec(tiny_policy.codec.vae, "sample")
    store = EncodingStore.create(tmp_path, DEPENDS | {"reference_latents": "sample"})
    encode_batches(BATCHES, tiny_policy.prompts, codec, store, PREPARE)
    reading = LatentCodec(tiny_policy.codec.vae, "sample", store)
    direct = torch.cat([codec.encode([picture(1)]), codec.encode([picture(2)])])
    assert torch.equal(reading.encode([picture(1), picture(2)]), direct)


# References by a draw from the posterior: N(0, 1) noise that belongs to the picture


def test_sample_is_the_posteriors(tiny_policy: FluxPolicy) -> None:
    """mean + std * noise with N(0, 1) noise, scaled as latents are (shift 0.1, scale 0.7)."""
    assert tiny_policy.codec is not None
    vae = tiny_policy.codec.vae
    image = picture(1, 256, 256)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist  # pyright: ignore
    noise = ((LatentCodec(vae, "sample").encode([image]) / 0.7 + 0.1) - posterior.mean) / posterior.std
    assert noise.numel() == 32768
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.02  # 5 standard errors
    correlation = torch.corrcoef(torch.stack([noise.flatten(), posterior.mean.flatten()]))[0, 1]
    assert abs(correlation) < 0.03


def test_sample_belongs_to_the_picture(tiny_policy: FluxPolicy) -> None:
    """Whatever the batch, its order, the global random state, and the codec's instance."""
    assert tiny_policy.codec is not None
    vae = tiny_policy.codec.vae
    pictures = [picture(seed) for seed in range(3)]
    torch.manual_seed(1)
    together = LatentCodec(vae, "sample").encode(pictures)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    turned = LatentCodec(vae, "sample").encode(pictures[::-1]).flip(0)
    assert torch.equal(torch.get_rng_state(), before)
    codec = LatentCodec(vae, "sample")
    codec.chunk = 1
    means = tiny_policy.codec.encode(pictures)
    for other in (turned, codec.encode(pictures)):
        assert torch.allclose(together, other, atol=1e-5)
    noise_NC = (together - means).flatten(1)
    assert (noise_NC.abs().mean(1) > 0.01).all()
    assert torch.corrcoef(noise_NC)[0, 1].abs() < 0.25  # 384 numbers each: 5 standard errors
