"""Who answers questions about images: a question answering model, or the generator of the scenes itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from wsss.checks import nearest
from wsss.data.scenes.relations import answer
from wsss.data.scenes.vocabulary import Vocabulary, vocabulary
from wsss.errors import RecipeError
from wsss.models.vqa import QuestionAnswerer


class Asked(NamedTuple):
    """One question about one class: its template, and the template with the noun filled in."""

    class_name: str
    template: str
    question: str


class Source(Protocol):
    """Gives answers. Two sources of equal name, sha256 and settings must give the same answers.

    Attributes:
        needs_images: False lets images stay on the disk; `answers` is then given none.
    """

    needs_images: bool

    @property
    def name(self) -> str:
        """Name for the header of the file and for messages."""

    @property
    def sha256(self) -> str | None:
        """Digest of the weights; None where there are none."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else decides the answers; JSON values."""

    def answers(
        self, image_ids: Sequence[str], images: Sequence[np.ndarray], asked: Sequence[Sequence[Asked]]
    ) -> list[list[str]]:
        """One answer per question, image by image.

        Args:
            image_ids: B names.
            images: B images, RGB, 0-255; (H, W, 3), uint8; empty where `needs_images` is False.
            asked: B lists of questions.
        """


class VqaSource:
    """Answers of a visual question answering model.

    Args:
        answerer: the model.
        sha256: digest of its weights.
    """

    needs_images = True

    def __init__(self, answerer: QuestionAnswerer, sha256: str | None = None) -> None:
        self._answerer = answerer
        self.name = answerer.name
        self.sha256 = sha256
        self.settings: Mapping[str, Any] = answerer.settings

    def answers(
        self, image_ids: Sequence[str], images: Sequence[np.ndarray], asked: Sequence[Sequence[Asked]]
    ) -> list[list[str]]:
        return self._answerer.answer(images, [[item.question for item in own] for own in asked])


class OracleSource:
    """The true answers about generated scenes, for ablation only: they are more than image labels tell.

    Args:
        metadata: what the generator knows of an image, by its id.
        words: the words of the world; None: the shipped ones.
    """

    needs_images = False
    name = "oracle"
    sha256 = None

    def __init__(self, metadata: Callable[[str], dict[str, Any]], words: Vocabulary | None = None) -> None:
        self.settings: Mapping[str, Any] = {"oracle": True, "use": "ablation only"}
        self._metadata = metadata
        self._topics = dict((vocabulary() if words is None else words).questions)

    def answers(
        self, image_ids: Sequence[str], images: Sequence[np.ndarray], asked: Sequence[Sequence[Asked]]
    ) -> list[list[str]]:
        return [
            [answer(self._metadata(image_id), item.class_name, self._topic(item.template)) for item in own]
            for image_id, own in zip(image_ids, asked, strict=True)
        ]

    def _topic(self, template: str) -> str:
        if template not in self._topics:
            raise RecipeError(
                f"The generator can't answer {template!r}; it answers the published questions only. "
                f"{nearest(template, self._topics)}"
            )
        return self._topics[template]
