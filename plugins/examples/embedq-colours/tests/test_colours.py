from io import BytesIO

from PIL import Image

from embedq import cosine_similarity
from embedq_colours import Colours
from embedq_plugins.testing import ModelConformance


def image(*colours: str) -> bytes:
    """A picture with a stripe for each colour, as a file."""
    picture = Image.new("RGB", (8 * len(colours), 8))
    for number, colour in enumerate(colours):
        picture.paste(colour, (8 * number, 0, 8 * number + 8, 8))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


class TestConformance(ModelConformance):
    model = Colours()
    texts = ("red", "gold and navy", "a very long way to say pink " * 50, "no colour at all")
    binary = (image("red"), image("gold", "navy"))


def test_words_find_images() -> None:
    sea, sand = Colours().embed_multi([image("navy", "teal"), image("gold", "tan")])
    (words,) = Colours().embed_multi(["gold"])
    assert cosine_similarity(words, sand) > 0.5 > cosine_similarity(words, sea)
