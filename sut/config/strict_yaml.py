"""YAML as this project takes it: what people write, and nothing that means something else than it seems to."""

from __future__ import annotations

from typing import Any

import yaml

from sut.errors import one_line

_MOST_DIGITS = 40
"""Of a whole number: more than 64 bits have."""


def load_yaml(text: str) -> Any:
    """The one value that a YAML text is.

    Raises ``ValueError``, in one line with the place, for what is no YAML or no plain data, keys that stand twice (of
    which YAML would keep the last), aliases (with which a few lines make gigabytes), whole numbers beyond all bounds
    and what is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # such as a date that is none
        raise ValueError(one_line(error)) from None


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "an alias is not taken; write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in keys:
                raise yaml.MarkedYAMLError(None, None, f"the key '{key.value}' stands twice", key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > _MOST_DIGITS:
            raise yaml.MarkedYAMLError(None, None, f"a whole number of {len(node.value)} digits", node.start_mark)
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
