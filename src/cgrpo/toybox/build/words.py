"""Word-level tokenizers over the toy world's vocabulary, in the layout that AutoTokenizer reads."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cgrpo.toybox import world

LENGTH = 12  # tokens: the longest prompt has ten words, plus begin and end
SPECIAL = ("<pad>", "<bos>", "<unk>", "<eos>")


def vocabulary() -> list[str]:
    """Special tokens, then every word a prompt can hold, sorted."""
    phrases = [*world.SCENES.values(), *(phrase for phrase, _ in world.POSITIONS.values())]
    words = {word for phrase in phrases for word in phrase.split()}
    return [*SPECIAL, *sorted(words | {"a", world.PHRASE} | set(world.SIZES) | set(world.PROPERTIES) - {""})]


def build_tokenizer(folder: Path, *, begin: bool) -> PreTrainedTokenizerFast:
    """Save a tokenizer to ``folder``; ``begin`` puts <bos> in front (CLIP does, T5 does not)."""
    table = {word: index for index, word in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    core.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<bos> $A <eos>" if begin else "$A <eos>",
        special_tokens=[("<bos>", table["<bos>"]), ("<eos>", table["<eos>"])],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=LENGTH,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
