"""Sentences to calibrate an encoder with: those of a file, filled up with WordNet's examples.

    python benchmarks/sentences.py stsb.npz --wordnet DIR --tokenizer tokenizer.json --out OUT.npz

WordNet's glosses (Debian's wordnet-base) quote sentences; of those with six words or more, some are
drawn at random. The file holds `input_ids`, padded with 0, and `attention_mask`; so does what is
written, in random order and padded to one length. Needs `tokenizers`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

_FEWEST_WORDS = 6
_COUNT = 2000


def examples(folder: Path) -> list[str]:
    """Return the sentences that glosses quote, sorted."""
    found = set()
    for path in sorted(folder.glob("data.*")):
        for line in path.read_text("latin-1").splitlines():
            quoted = re.findall(r'"([^"]+)"', line.partition("|")[2])
            found |= {text.strip() for text in quoted if len(text.split()) >= _FEWEST_WORDS}
    return sorted(found)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sentences", type=Path, help="npz with input_ids and attention_mask")
    parser.add_argument("--wordnet", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="JSON")
    parser.add_argument("--count", type=int, default=_COUNT, help="sentences in all, at most")
    parser.add_argument("--out", type=Path, required=True, metavar="NPZ")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with np.load(given.sentences) as data:
        known = data["input_ids"]
    width = known.shape[1]
    texts = examples(given.wordnet)
    tokenizer = Tokenizer.from_file(str(given.tokenizer))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    drawn = rng.permutation(len(texts))[: max(0, given.count - len(known))]
    rows = [tokenizer.encode(texts[k]).ids for k in drawn]
    rows = [row for row in rows if len(row) <= width]
    ids = np.zeros((len(known) + len(rows), width), np.int64)
    ids[: len(known)] = known
    for place, row in zip(ids[len(known) :], rows, strict=True):
        place[: len(row)] = row
    ids = ids[rng.permutation(len(ids))]
    np.savez(given.out, input_ids=ids, attention_mask=(ids > 0).astype(np.int64))
    print(f"{given.out}: {len(ids)} sentences, {len(rows)} of them WordNet's")


if __name__ == "__main__":
    main()
