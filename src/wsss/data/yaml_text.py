"""YAML that people write, read so that no file can harm: no code, no references that grow without end.

A few lines of references to references stand for millions of values; whoever shows or copies these hangs.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from wsss.errors import WsssError

MOST_VALUES: Final = 1_000_000  # of a document with its references written out; recipes hold some hundred


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader, *, name: str = "") -> Any:
    """The one document of a text.

    Args:
        text: as it stands in the file.
        loader: builds values of nodes; a safe one.
        name: of the file, for messages of `loader`.

    Raises:
        ValueError: no YAML, values that their tags do not fit, or references that grow too much. Errors of
            `loader` that are meant for users pass.

    Example:
        >>> parse_yaml("a: [1, x]")
        {'a': [1, 'x']}
    """
    reader: yaml.SafeLoader | None = None
    try:
        reader = loader(text)
        reader.name = name or reader.name
        node = reader.get_single_node()
        if node is None:
            return None
        _written_out(node, {})
        return reader.construct_document(node)
    except WsssError:
        raise
    except Exception as error:  # values that are not what their tag says raise almost anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        deep = "it is nested too deeply" if isinstance(error, RecursionError) else reason
        raise ValueError(deep) from error
    finally:
        if reader is not None:
            reader.dispose()


def _written_out(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values a node stands for, its references included."""
    if node in known:
        if known[node] == 0:  # still being counted
            raise ValueError("a value refers to itself")
        return known[node]
    known[node] = 0
    below = node.value if isinstance(node, yaml.CollectionNode) else ()
    parts = [part for item in below for part in (item if isinstance(item, tuple) else (item,))]
    known[node] = 1 + sum(_written_out(part, known) for part in parts)
    if known[node] > MOST_VALUES:
        raise ValueError(f"its references stand for more than {MOST_VALUES:,} values")
    return known[node]
