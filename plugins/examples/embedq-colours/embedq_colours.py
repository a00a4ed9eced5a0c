"""Images, and texts that name colours, as mixtures of colours: an embedding model for embedq."""

import re
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Final

import embedq

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LEVELS: Final = 4
"""Shades of red, of green and of blue that are told apart."""

_SIDE: Final = 32
_WORD: Final = re.compile("[a-z]+")


class Colours(embedq.EmbeddingModel):
    """How much there is of each of 64 colours: float32, rows of length 1, zero for a text that names no colour."""

    model_id = "colours"
    supports_binary = True
    batch_size = 64
    dimension = LEVELS**3
    library = "PIL"
    install = "pip install embedq-colours"

    def embed_batch(self, items: Iterable[str | bytes]) -> "npt.NDArray[np.float32]":
        """One row for each image (bytes of a file) or text. Raises what Pillow raises for bytes that are no image."""
        # Here and not above: every command imports plugins, and few embed anything.
        import numpy as np

        return np.stack([_mixture(_pixels(item)) for item in items])


def _pixels(item: str | bytes) -> "npt.NDArray[np.float32]":
    """The colours of an item, shape (any number, 3), from 0 to 1."""
    import numpy as np
    from PIL import Image, ImageColor

    if isinstance(item, bytes):
        with Image.open(BytesIO(item)) as image:
            pixels = np.asarray(image.convert("RGB").resize((_SIDE, _SIDE)), dtype=np.float32)
    else:
        named = [ImageColor.getrgb(word) for word in _WORD.findall(item.lower()) if word in ImageColor.colormap]
        pixels = np.array(named, dtype=np.float32)
    return pixels.reshape(-1, 3) / np.float32(255)


def _mixture(pixels: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    """Each pixel counts for the colours near it: the vector, shape (64,), float32."""
    import numpy as np

    shades = np.linspace(0, 1, LEVELS, dtype=np.float32)
    colours = np.stack(np.meshgrid(shades, shades, shades), axis=-1).reshape(-1, 3)
    distances = ((pixels[:, None] - colours) ** 2).sum(axis=2)
    weights = np.exp(-8 * distances).sum(axis=0)
    length = np.linalg.norm(weights)
    row: npt.NDArray[np.float32] = (weights / length if length else weights).astype(np.float32)
    return row


@embedq.hookimpl
def register_embedding_models(register: Callable[..., None]) -> None:
    """Make the model known."""
    register(Colours(), aliases=("colors",))
