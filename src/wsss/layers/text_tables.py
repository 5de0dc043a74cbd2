"""Text features of classes and of backgrounds, encoded once and kept beside the network that uses them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss.layers.text_matching import full_precision, unit
from wsss.models.clip import ImageTextTeacher


class TextTables(nn.Module):
    """Unit features of K class texts and T background texts.

    They are constants, so the teacher encodes them when they are first asked for and never again. They move
    with the module they belong to and are in no `state_dict`.

    Args:
        prompts: the noun for each class; K.
        backgrounds: for each class, the backgrounds that count for it; K sequences, possibly empty.
        template: text with `{}` for a noun; None: the teacher's own.

    Attributes:
        background_names: the T different backgrounds.
        listed: which of them count for which class; (K, T), bool.
    """

    listed: Tensor
    _classes: Tensor | None
    _backgrounds: Tensor | None

    def __init__(
        self, prompts: Sequence[str], backgrounds: Sequence[Sequence[str]], template: str | None = None
    ) -> None:
        super().__init__()
        self.prompts, self.template = tuple(prompts), template
        self.background_names = tuple(dict.fromkeys(text for texts in backgrounds for text in texts))
        listed = [[text in texts for text in self.background_names] for texts in backgrounds]
        shape = (len(self.prompts), len(self.background_names))
        self.register_buffer(
            "listed", torch.tensor(listed, dtype=torch.bool).reshape(shape), persistent=False
        )
        self.register_buffer("_classes", None, persistent=False)
        self.register_buffer("_backgrounds", None, persistent=False)

    def features(self, teacher: ImageTextTeacher) -> tuple[Tensor, Tensor]:
        """Unit features (K, E) of classes and (T, E) of backgrounds, float32; the first call encodes."""
        if self._classes is None or self._backgrounds is None:
            template = self.template or teacher.prompt_template
            texts = [template.replace("{}", name) for name in (*self.prompts, *self.background_names)]
            with torch.no_grad(), full_precision(self.listed.device):
                features = unit(teacher.encode_texts(texts)).to(self.listed.device)
            sizes = [len(self.prompts), len(self.background_names)]
            self._classes, self._backgrounds = torch.split(features, sizes)
        return self._classes, self._backgrounds
