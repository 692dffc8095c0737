"""A tiny text encoder with its tokenizer, and a saved data set of reviews."""

from pathlib import Path

import datasets
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast

WORDS = ("[PAD]", "[UNK]", "good", "bad", "film")


def write_tokenizer(folder: Path, *, pad: bool = True) -> Path:
    """Write a tokenizer of a few whole words.

    Args:
        folder: where it is written.
        pad: whether it has a token that fills texts up.
    """
    tokenizer = Tokenizer(models.WordLevel(dict(zip(WORDS, range(5), strict=True)), "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"unk_token": "[UNK]", **({"pad_token": "[PAD]"} if pad else {})}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return folder


def write_encoder(folder: Path) -> Path:
    """Write the configuration of a BERT of one layer, and its tokenizer."""
    BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    ).save_pretrained(folder)
    return write_tokenizer(folder)


def save_reviews(folder: Path, *, count: int = 32) -> None:
    """Save an encoder as `bert`, and reviews of two words with their labels as `reviews`."""
    write_encoder(folder / "bert")
    features = datasets.Features(
        {"review": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = [{"review": f"{('bad', 'good')[n % 2]} film", "label": n % 2} for n in range(count)]
    held = datasets.Dataset.from_list(rows, features=features)
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": held, "test": held}).save_to_disk(str(folder / "reviews"))
