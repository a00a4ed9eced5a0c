from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from embedq_core.vectors import cosine_similarity
from embedq_plugins import HashingModel
from embedq_plugins.features import DIMENSION, LONGEST_TOKEN, hashed_vectors, token_features, tokens

model = HashingModel()


def similarity(left: str, right: str) -> float:
    return cosine_similarity(*hashed_vectors([left, right]))


def test_rows_are_float32_of_length_one() -> None:
    vectors = hashed_vectors(["read a file", "Zażółć gęślą jaźń", "x" * 10_000, "日本語の文章"])
    assert vectors.shape == (4, DIMENSION)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("text", ["", "   \n", "?!…", "___", "\ud800"])
def test_text_without_a_word_is_the_zero_vector(text: str) -> None:
    assert model.embed(text) == [0.0] * DIMENSION


def test_no_texts_make_no_rows() -> None:
    assert hashed_vectors([]).shape == (0, DIMENSION)


def test_stop_words_alone_still_have_a_direction() -> None:
    assert np.linalg.norm(model.embed("how to do it")) == pytest.approx(1, abs=1e-6)


def test_a_vector_depends_on_its_own_text_alone() -> None:
    texts = ["a first text", "", "another, longer text", "a first text"]
    together = hashed_vectors(texts)
    alone = np.concatenate([hashed_vectors([text]) for text in texts])
    assert np.array_equal(together, alone)


def test_the_same_text_gives_the_same_vector_in_every_process(run_python: Callable[..., str]) -> None:
    code = "import embedq_plugins; print(embedq_plugins.HashingModel().embed('Parse a date')[:40])"
    first, second = (run_python(code, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first == second == f"{model.embed('Parse a date')[:40]}\n"


def test_stored_vectors_stay_valid_the_features_of_a_word_never_change() -> None:
    # Other numbers make every collection that was embedded with `hashing` wrong: a new model id is needed.
    cells, weights = token_features("date")
    assert cells[:4].tolist() == [35, 62, 252, 205]
    assert weights[:4].tolist() == pytest.approx([-0.25, -0.25, 0.25, 0.25])
    assert cells[-2:].tolist() == [221, 310]
    assert weights[-2:].tolist() == pytest.approx([0.8 / 18**0.5, -0.8 / 18**0.5])
    assert len(cells) == len(weights) == 16 + 2 * 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Read the FILE", ["read", "the", "file"]),
        ("read_lines", ["read_lines", "read", "lines"]),
        ("HTTPServerError", ["httpservererror", "http", "server", "error"]),
        ("b64encode", ["b64encode", "64", "encode"]),
        ("datetime.strptime()", ["datetime", "strptime"]),
        ("__init__", ["init"]),
        ("naïve Straße", ["naïve", "strasse"]),
        ("straße_größe", ["strasse_grösse", "strasse", "grösse"]),
        ("\N{FULLWIDTH LATIN SMALL LETTER A}b", ["ab"]),
        ("日本語", ["日本", "本語"]),
        ("日", ["日"]),
        ("3日 tag", ["日", "3", "tag"]),
    ],
)
def test_tokens_are_words_and_the_parts_of_identifiers(text: str, expected: list[str]) -> None:
    assert list(tokens(text)) == expected


def test_long_runs_are_cut_and_nothing_of_them_is_lost() -> None:
    run = "abcdefgh" * 20
    assert "".join(tokens(run)) == run
    assert max(map(len, tokens(run))) == LONGEST_TOKEN


def test_equal_texts_are_closer_than_inflections_and_these_than_strangers() -> None:
    similarities = [
        similarity("parse", "Parse!"),
        similarity("parse", "parsing"),
        similarity("parse", "kangaroo"),
    ]
    assert all(closer > farther + 0.1 for closer, farther in pairwise(similarities))


def test_stop_words_count_little() -> None:
    assert similarity("how do I parse a date", "parse date") > 0.95
    assert similarity("how do I sing", "how do I calculate") < 0.3


def test_repetition_counts_sublinearly() -> None:
    once, often = similarity("alpha beta", "alpha"), similarity("alpha " * 50 + "beta", "alpha")
    assert once < often < 1


DOCSTRINGS = {
    "bz2.BZ2File.readlines": "Read a list of lines of uncompressed bytes from the file.",
    "gzip.open": "Open a gzip-compressed file in binary or text mode.",
    "datetime.date.fromisoformat": "str -> Construct a date from a string in ISO 8601 format.",
    "datetime.datetime.strptime": "string, format -> new datetime parsed from a string.",
    "random.choice": "Choose a random element from a non-empty sequence.",
    "shutil.rmtree": "Recursively delete a directory tree.",
    "smtplib.SMTP.sendmail": "This command performs an entire mail transaction.",
    "statistics.median": "Return the median (middle value) of numeric data.",
    "threading.Thread.start": "Start the thread's activity.",
    "zlib.crc32": "Compute a CRC-32 checksum of data.",
}


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("parse a date from text", {"datetime.date.fromisoformat", "datetime.datetime.strptime"}),
        ("read lines from a compressed file", {"bz2.BZ2File.readlines", "gzip.open"}),
        ("pick random elements", {"random.choice"}),
        ("delete a directory", {"shutil.rmtree"}),
        ("median of numbers", {"statistics.median"}),
    ],
)
def test_a_question_finds_docstrings_that_share_its_words(question: str, answers: set[str]) -> None:
    names = list(DOCSTRINGS)
    corpus = hashed_vectors([f"{name}: {text}" for name, text in DOCSTRINGS.items()])
    ranks = np.argsort(-(corpus @ hashed_vectors([question])[0]))
    assert {names[rank] for rank in ranks[: len(answers)]} == answers
