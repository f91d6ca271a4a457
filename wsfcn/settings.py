"""Frozen, validated settings: the base of recipes, protocols and notebook parameters."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

DEEPEST = 9  # groups in groups of a file; deeper ones take the parser minutes


class SettingsError(ValueError):
    """A settings name or value that is not allowed; the message names field, value and range."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Settings(BaseModel):
    """Immutable settings that refuse unknown names.

    >>> from wsfcn import recipes
    >>> recipes.lite_scenes().change({"train.epochs": 3}).train.epochs
    3
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(*explain(error, type(self))) from None

    def change(self, changes: dict[str, Any]) -> Self:
        """A validated copy with some fields changed; dots reach into nested settings.

        Raises SettingsError for a name that does not exist or a value out of range.
        """
        values = self.model_dump()
        for name, value in changes.items():
            place: dict[str, Any] = values
            model: type[BaseModel] = type(self)
            *groups, last = name.split(".")
            for group in groups:
                child = _field(name, group, model)
                if not (isinstance(child, type) and issubclass(child, Settings)):
                    raise SettingsError(f"{name}: {group} is a single value, not a group")
                place, model = place[group], child
            _field(name, last, model)
            place[last] = value.model_dump() if isinstance(value, Settings) else value
        return type(self)(**values)


def read_yaml(path: Path) -> dict[str, Any]:
    """The lines of 'name: value' in a file. SettingsError naming it where it holds others."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            # A name for a value may stand for itself ten times, and that one too.
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                told = f"names values (&, *) or nests more than {DEEPEST} deep"
                raise SettingsError(f"{path}: {told}, which settings need not")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise SettingsError(f"{path}: is not YAML ({said:.160})") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise SettingsError(f"{path}: needs lines of 'name: value'")
    return values


def nearest(name: str, known: Collection[str]) -> str:
    """A hint for a name that is not known."""
    near = difflib.get_close_matches(name.lower(), [*known], n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _field(name: str, part: str, model: type[BaseModel]) -> Any:
    """The annotation of a field of the model."""
    if part not in model.model_fields:
        raise SettingsError(_unknown(name, part, model))
    return model.model_fields[part].annotation


def _unknown(name: str, part: str, model: type[BaseModel]) -> str:
    return f"{name}: no such setting; {nearest(part, model.model_fields)}"


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line per problem: dotted field, what is allowed, what was given."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, SettingsError):  # raised by settings nested in this field
            lines += [f"{field}.{line}" for line in cause.problems]
        elif problem["type"] == "extra_forbidden":
            lines.append(_unknown(field, str(problem["loc"][-1]), _owner(model, problem["loc"])))
        elif problem["type"] == "value_error":  # our own validators name the field themselves
            lines.append(f"{field}.{cause}" if field else str(cause))
        else:
            lines.append(f"{field}: {problem['msg']} (got {short(problem['input']):.80})")
    return lines


def short(value: Any) -> str:
    """The beginning of a value's text; that of a hostile value would have no end."""
    plain = isinstance(value, str | int | float | bool | None)
    return repr(value) if plain else reprlib.repr(value)


def _owner(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        child = field.annotation if field else None
        if not (isinstance(child, type) and issubclass(child, BaseModel)):
            break
        model = child
    return model
