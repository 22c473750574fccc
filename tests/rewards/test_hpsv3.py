"""HPSv3: golden vectors of the official model, the positions and tables it was trained with, and its template."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import golden_models, tiny_rewards
from support.tasks import tasks
from support.tiny_rewards import DATA, TEMPLATE, golden

from cgrpo.errors import UserError
from cgrpo.rewards import hpsv3
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.hpsv3 import read_template
from cgrpo.rewards.hpsv3.reward import HPSv3

FACTS = json.loads((DATA / "hpsv3.json").read_text())
PROMPTS = FACTS["prompts"]


def pictures() -> list[Image.Image]:
    return golden_models.pictures(*FACTS["images"])


def make(folder, **settings) -> HPSv3:
    settings = {"template": folder / "template.txt", "dtype": "float32", **settings}
    return HPSv3(folder / "HPSv3.safetensors", folder / "backbone", **settings)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The golden checkpoint as published: one file of weights, and Qwen2-VL's folder."""
    folder = tmp_path_factory.mktemp("golden_hpsv3")
    ids = {key: value for key, value in FACTS["ids"].items() if key != "reward_token_id"}
    tiny_rewards.write_backbone({"model_type": "qwen2_vl", **FACTS["legacy_config"], **ids}, folder / "backbone")
    save_file(golden("hpsv3_state"), folder / "HPSv3.safetensors")
    (folder / "template.txt").write_text(golden_template(), newline="")
    return folder


def golden_template() -> str:
    """The user's turn, read back from the golden token ids: bytes between the picture and the end of the turn."""
    ids = load_file(DATA / "hpsv3_io.safetensors")["input_ids"][0].tolist()
    start, end = FACTS["ids"]["vision_end_token_id"], 258  # <|im_end|>
    first = ids.index(start) + 1
    user = tiny_rewards.qwen_tokenizer().decode([*ids[first : ids.index(FACTS["ids"]["reward_token_id"])]])
    rest = ids[ids.index(FACTS["ids"]["reward_token_id"]) + 1 :]
    tail = tiny_rewards.qwen_tokenizer().decode(rest[: rest.index(end)])
    return user.replace(PROMPTS[0], "{text_prompt}") + "<|Reward|>" + tail


@pytest.fixture(scope="module")
def exact(official):
    return make(official, rotary="fp32")


def test_inputs_are_the_official_ones(exact):
    expected = load_file(DATA / "hpsv3_io.safetensors")
    inputs = exact.processor(images=pictures(), return_tensors="pt")
    assert torch.equal(inputs["image_grid_thw"], expected["image_grid_thw"].long())
    rows = inputs["pixel_values"][expected["pixel_rows"].long()]
    assert (rows - expected["pixel_values_rows"]).abs().max() <= 1e-6
    ids_NL, mask_NL = exact.tokens(PROMPTS, inputs["image_grid_thw"])
    assert torch.equal(ids_NL, expected["input_ids"].long())
    assert torch.equal(mask_NL, expected["attention_mask"].long())
    assert exact.reward_id == FACTS["ids"]["reward_token_id"]


@pytest.mark.parametrize(("before", "after"), FACTS["smart_resize_hw_200704"])
def test_pictures_are_resized_to_about_448(exact, before, after):
    grid = exact.processor(images=[Image.new("RGB", (before[1], before[0]))], return_tensors="pt")["image_grid_thw"]
    assert (grid[0, 1:] * 14).tolist() == after


def test_scores_are_the_official_ones(exact):
    expected = golden("hpsv3_io")
    logits = exact.preferences(pictures(), PROMPTS)
    assert (logits - expected["logits"]).abs().max() <= 5e-5
    assert (logits - expected["logits_if_mrope_WRONG"]).abs().max() > 0.5  # positions count tokens one by one
    one_by_one = torch.cat([exact.preferences([p], [words]) for p, words in zip(pictures(), PROMPTS, strict=True)])
    assert (one_by_one - expected["logits_one_by_one"]).abs().max() <= 5e-5
    score = exact(to_tensor(pictures()[:1]), tasks(prompts=PROMPTS[:1]))
    assert score.dtype == torch.float32 and abs(score - expected["logits"][0, 0]) <= 5e-5


def test_rotary_tables_are_rounded_as_in_training(official):
    expected = golden("hpsv3_io")
    reference = make(official).preferences(pictures(), PROMPTS)
    assert (reference - expected["logits_bf16_rotary_tables"]).abs().max() <= 5e-5
    assert (reference - expected["logits"]).abs().max() > 1e-3
    whole = make(official, dtype="bfloat16").preferences(pictures(), PROMPTS)
    assert (whole - expected["logits_bf16_model_cpu"]).abs().max() <= 0.1 and whole.dtype == torch.float32


def test_the_template_is_known_by_its_hash():
    import hashlib

    assert hashlib.sha256(golden_template().encode()).hexdigest() == hpsv3.SHA256
    assert FACTS["user_template_sha256"] == hpsv3.SHA256


def test_rows_do_not_depend_on_each_other(tiny_hpsv3):
    reward, images = (
        make(tiny_hpsv3, chunk=2),
        to_tensor([Image.new("RGB", (32, 32), c) for c in ("red", "teal", "tan")]),
    )
    prompts = ("a cat", "a very much longer prompt about a dog", "é {x}")
    scores = reward(images, tasks(prompts=prompts))
    alone = [reward(images[n : n + 1], tasks(prompts=prompts[n : n + 1])) for n in range(3)]
    assert torch.allclose(scores, torch.cat(alone), atol=1e-5) and scores.unique().numel() == 3
    clear = Image.fromarray(images[0].numpy()).convert("RGBA")
    clear.putalpha(0)  # no more than its colours counts
    assert torch.allclose(reward.preferences([clear], ["a cat"])[:, 0], alone[0], atol=1e-6)
    with pytest.raises(UserError, match=r"holds the model's own token <\|image_pad\|>"):
        reward(images[:1], tasks(prompts=["a <|image_pad|>"]))


def test_a_groups_scores_do_not_depend_on_other_groups_even_in_bf16(tiny_hpsv3):
    reward = make(tiny_hpsv3, chunk=2, dtype="bfloat16")
    images = to_tensor([Image.effect_noise((32, 32), 40 + 20 * n).convert("RGB") for n in range(6)])
    prompts = ("a cat",) * 3 + ("a very much longer prompt about a dog",) * 3

    def scores(rows: slice) -> torch.Tensor:
        return reward(images[rows], tasks(prompts=prompts[rows]))

    assert torch.equal(scores(slice(0, 6)), torch.cat((scores(slice(0, 3)), scores(slice(3, 6)))))


def test_a_picture_too_narrow_for_the_processor_has_no_score(tiny_hpsv3):
    images_NHWC = torch.zeros(2, 2, 402, 3, dtype=torch.uint8)
    assert make(tiny_hpsv3)(images_NHWC, tasks(prompts=["a toy", "a cat"])).isnan().all()


def test_weights_that_do_not_fit_are_named_together(tiny_hpsv3, tmp_path):
    state = load_file(tiny_hpsv3 / "HPSv3.safetensors")
    state["model.surplus"] = state.pop("model.norm.weight")
    state["rm_head.5.weight"] = torch.zeros(3, 16)
    save_file(state, tmp_path / "HPSv3.safetensors")
    with pytest.raises(UserError) as caught:
        HPSv3(tmp_path / "HPSv3.safetensors", tiny_hpsv3 / "backbone", template=tiny_hpsv3 / "template.txt")
    message = str(caught.value)
    assert "lacks 1 weights, such as language_model.norm.weight" in message
    assert "1 unknown weights, such as language_model.surplus" in message
    assert (
        "1 weights of another shape, such as rm_head.5.weight ([3, 16] instead of [2, 16])" in message
        and "\n" not in message
    )
    with pytest.raises(UserError, match="absent: no such file; give HPSv3.safetensors"):
        HPSv3(tmp_path / "absent", tiny_hpsv3 / "backbone", template=tiny_hpsv3 / "template.txt")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the same layout that must not be imported, with a text of its own."""
    import hashlib

    source = (
        'raise RuntimeError("imported")\nINSTRUCTION = """Look: {text_prompt}"""\nINSTRUCTION_debug = "no"\n'
        'prompt_with_special_token = """\nRate: <|Reward|>"""\n'
    )
    (tmp_path / "hpsv3" / "dataset").mkdir(parents=True)
    (tmp_path / "hpsv3" / "__init__.py").write_text('raise RuntimeError("imported")')
    (tmp_path / "hpsv3" / "dataset" / "data_collator_qwen.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    text = "Look: {text_prompt}\nRate: <|Reward|>"
    monkeypatch.setattr(hpsv3, "SHA256", hashlib.sha256(text.encode()).hexdigest())
    return tmp_path / "hpsv3" / "dataset" / "data_collator_qwen.py", text


def test_the_installed_package_is_read_and_not_run(package):
    path, text = package
    assert read_template() == text == read_template(path)


def test_another_version_of_the_template_is_refused(package):
    path, _ = package
    path.write_text(path.read_text().replace("Look", "See"))
    with pytest.raises(UserError, match="not the text the checkpoint was trained on"):
        read_template()
    path.write_text("INSTRUCTION = 'x'")
    with pytest.raises(UserError, match="holds no string constant prompt_with_special_token"):
        read_template(path)


def test_a_template_of_ones_own(tmp_path, monkeypatch):
    path = tmp_path / "mine.txt"
    path.write_text(TEMPLATE)
    assert read_template(path) == TEMPLATE
    path.write_text("{text_prompt}")
    with pytest.raises(UserError, match=r"must hold <\|Reward\|> exactly once, holds it 0 times"):
        read_template(path)
    with pytest.raises(UserError, match="must be a .txt, or the .py"):
        (tmp_path / "mine.md").write_text(TEMPLATE)
        read_template(tmp_path / "mine.md")
    with pytest.raises(UserError, match=r"absent\.txt"):
        read_template(tmp_path / "absent.txt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps hpsv3==1.0.0"):
        read_template()
