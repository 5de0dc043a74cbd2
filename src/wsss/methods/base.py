"""What a method is: a network trained from image labels that gives class activation maps.

One file per method, `wsss/methods/<name>.py` (or any file, given by its path): it holds exactly one `Method`
subclass, which `find_method` imports by name. Nothing else in the library changes when a method is added.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from typing_extensions import Self

from wsss.checks import nearest
from wsss.data.dataset import Dataset
from wsss.errors import RecipeError, WeightsError
from wsss.models.clip import ImageTextTeacher
from wsss.questions.answers import Answers
from wsss.training.journal import Progress
from wsss.types import Batch, ClassInfo, Paper


class MethodConfig(BaseModel):
    """Hyper-parameters that every method has; subclasses add their own, defaults = published values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def with_class_texts(self, classes: Sequence[ClassInfo]) -> Self:
        """Fill texts that the recipe leaves open from the data set's class descriptions; default: nothing."""
        return self

    def check_installation(self) -> None:
        """Raise, before anything runs, where an optional package is needed and missing; default: nothing."""


@dataclass(frozen=True)
class Frozen:
    """Models that a method uses but never trains; kept out of its `state_dict`.

    Args:
        teacher: image-text matcher (CLIP family), for methods guided by language.
        tag_classifier: trained multi-label classifier, (B, 3, H, W) -> (B, K) logits (CLIMS ablation).
        answers: what a question answering model said about every training image (QA-CLIMS); no model itself.
    """

    teacher: ImageTextTeacher | None = None
    tag_classifier: nn.Module | None = None
    answers: Answers | None = None


class Method(nn.Module, ABC):
    """A network trained from image labels alone.

    Args:
        config: the method's own `Config`.
        class_names: K + 1 names, the first "background".
        frozen: frozen helpers; `needs` says which are required.

    Attributes:
        presets: named sets of hyper-parameters, applied before the recipe's own values.
        needs: names of the `Frozen` fields that `config` requires.
        supervision: I (image labels), I+L (and language), I+S (and saliency).
        export_fields: hyper-parameters that change what `cams` gives and no weight: with another value the
            maps are written anew and nothing is trained again.
        prepare_fields: hyper-parameters that decide what `prepare` leaves; None: all. Runs that share them
            share its work.
        mean, std: statistics that images are normalised with, RGB in [0, 1].
    """

    paper: ClassVar[Paper]
    Config: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    supervision: ClassVar[str] = "I"
    export_fields: ClassVar[frozenset[str]] = frozenset()
    prepare_fields: ClassVar[frozenset[str] | None] = None

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __init__(self, config: MethodConfig, class_names: Sequence[str], frozen: Frozen) -> None:
        super().__init__()
        self.config = config
        self.class_names = tuple(class_names)
        self.frozen = frozen  # a plain dataclass: its models are no submodules, so never in state_dict
        for helper in vars(frozen).values():
            if isinstance(helper, nn.Module):
                helper.requires_grad_(False).eval()

    @property
    def num_foreground(self) -> int:
        """K."""
        return len(self.class_names) - 1

    @classmethod
    def needs(cls, config: Any) -> tuple[str, ...]:
        """Which `Frozen` fields this configuration requires."""
        return ()

    @classmethod
    def pixel_inputs(cls, config: Any) -> tuple[str, ...]:
        """Which inputs of every pixel training finds in `Batch.aligned` (`saliency`); default: none."""
        return ()

    @classmethod
    def num_words(cls, config: Any) -> int:
        """W, how many visual words `word_labels` and `word_classes` speak of; default: 0, none."""
        return 0

    @classmethod
    def supervision_of(cls, config: Any) -> str:
        """Supervision of this configuration, as in the attribute `supervision`."""
        return cls.supervision

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, already weighted; the trainer sums and logs them."""

    @abstractmethod
    def cams(self, images: Tensor) -> Tensor:
        """Class activation maps (B, K, h, w) of images (B, 3, H, W): non-negative, unnormalised."""

    def word_labels(self, images: Tensor) -> Tensor:
        """The visual word of each cell, 0…W-1; (B, h, w), int64, of images (B, 3, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} has no visual words.")

    def word_classes(self) -> Tensor:
        """What each visual word speaks for, without a look at any mask: 0…K; (W,), int64."""
        raise NotImplementedError(f"{type(self).__name__} has no visual words.")

    def prepare(
        self, dataset: Dataset, ids: Sequence[str], cache_dir: Path, *, progress: Progress | None = None
    ) -> None:
        """One-off work before training, kept in `cache_dir`; default: nothing.

        Called once in a stage of its own, and again before training, when it finds its work done.

        Args:
            dataset: images and tags, no masks.
            ids: images that will be trained on.
            cache_dir: where it may keep files; what an interruption leaves there is for the next call.
            progress: follows the work.
        """

    def rehearse(self, image_id: str) -> None:
        """Stand in for `prepare` before a step is timed on images all called `image_id`; default: nothing."""

    def initialise(self, state: Mapping[str, Tensor]) -> None:
        """Start from the weights of the recipe's `initialise` method; default: all must fit."""
        try:
            self.load_state_dict(dict(state))
        except RuntimeError as error:  # torch's list of what is missing, unexpected or of another shape
            problem = " ".join(str(error).split())
            raise WeightsError(
                f"{type(self).__name__} can't start from these weights: {problem[:300]} "
                "Use the same backbone and classes in `initialise` and `method`."
            ) from error

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Backbone at the base rate, everything else at ten times it."""
        backbone = [p for n, p in self.named_parameters() if n.startswith("backbone.") and p.requires_grad]
        others = [p for n, p in self.named_parameters() if not n.startswith("backbone.") and p.requires_grad]
        return [{"params": backbone, "lr": base_lr}, {"params": others, "lr": 10 * base_lr}]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move frozen helpers together with the method."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for helper in vars(self.frozen).values():
            if isinstance(helper, nn.Module):
                helper._apply(fn)  # type: ignore[no-untyped-call]
        return self


def list_methods() -> tuple[str, ...]:
    """Names of the methods in the package."""
    folder = Path(__file__).parent
    return tuple(
        sorted(
            m.name
            for m in pkgutil.iter_modules([str(folder)])
            if m.name != "base" and not m.name.startswith("_")
        )
    )


def find_method(name: str) -> type[Method]:
    """The `Method` class called `name`, or the one in the Python file at the path `name`.

    Raises:
        RecipeError: no such method, or its file does not define exactly one.
    """
    if name.endswith(".py"):
        module = import_file(Path(name), "method")
    elif name in list_methods():
        module = importlib.import_module(f"wsss.methods.{name}")
    else:
        raise RecipeError(f"Unknown method `{name}`. {nearest(name, list_methods())}")
    found: type[Method] = single_subclass(module, Method)
    return found


def single_subclass(module: ModuleType, base: type[Any]) -> Any:
    """The one concrete subclass of `base` that `module` itself defines."""
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    if len(found) != 1:
        names = [value.__name__ for value in found] or "none"
        raise RecipeError(
            f"{module.__file__} must define exactly one {base.__name__} subclass; got {names}. "
            "Put each into a file of its own."
        )
    return found[0]


def import_file(path: Path, what: str) -> ModuleType:
    """The module in a Python file; `what` it defines (method, refiner) is for the message.

    Raises:
        RecipeError: there is no such file.
    """
    if not path.is_file():
        raise RecipeError(
            f"There is no {what} file {path}. "
            f"Give the path of a Python file that defines a {what.capitalize()}."
        )
    spec = importlib.util.spec_from_file_location(f"wsss_{what}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations of the file's classes are looked up
    spec.loader.exec_module(module)
    return module
