"""Configuration: TOML and `--set` in, a frozen `Experiment` out, and back; refusals in one line each."""

import difflib
import io
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from securekd.errors import SettingError
from securekd.files import encoding_of
from securekd.settings.experiment import Experiment

Tree = dict[str, Any]

_MOST_SHOWN = 80

_BARE_WORD = re.compile(r"[A-Za-z0-9_./:$\{\}\\~-]+")


def load_experiment(path: Path | None = None, overrides: Iterable[str] = ()) -> Experiment:
    """The experiment of a TOML file (or the embedded default), with `key=value` overrides on top.

    Raises:
        SettingError: for a file that is not there or is not TOML (a repeated key included), an unknown setting, or a
            value out of its range.
    """
    tree = read_toml(path) if path is not None else {}
    for override in overrides:
        _override(tree, override)
    return parse_experiment(tree)


def read_toml(path: Path) -> Tree:
    """The tables of a TOML file: UTF-8, or what its byte-order mark says.

    Raises:
        SettingError: for a file that is not there, is no text, or is not TOML.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise SettingError(f"cannot read {path}: {said}; give the path of a TOML file") from error
    encoding = encoding_of(content)
    try:
        return tomllib.loads(io.TextIOWrapper(io.BytesIO(content), encoding).read())
    except UnicodeError as error:
        raise SettingError(f"{path} is not {encoding.upper()} text: {error}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path} is not valid TOML: {error}; mend that line (a key may stand only once)") from error
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise SettingError(f"{path} holds what TOML cannot: {error}; write something smaller") from error


def quoted(value: Any) -> str:
    """A value as an error shows it: short, whatever it is."""
    try:
        text = repr(value)
    except ValueError:
        return "an integer of thousands of digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]}…"


def parse_experiment(tree: Tree) -> Experiment:
    """A validated experiment; the first thing wrong with it becomes a one-line error."""
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise SettingError(explain(error)) from error


def to_toml(experiment: Experiment) -> str:
    """The experiment as TOML, every setting spelt out (unset ones left away)."""
    return tomli_w.dumps(experiment.model_dump(mode="json", exclude_none=True))


@dataclass(frozen=True)
class Setting:
    """One line of the table of all settings."""

    key: str
    type: str
    default: str
    range: str
    meaning: str


def all_settings(model: type[BaseModel] = Experiment) -> tuple[Setting, ...]:
    """Every setting of a model with default, range and meaning, read off its fields."""
    return tuple(_walk(model, ""))


def put(tree: Tree, key: str, value: Any, said: str) -> None:
    """Set a dotted key in a tree of tables, in place.

    Args:
        tree: as TOML gives it.
        key: for example privacy.epsilon.
        value: whatever TOML can hold.
        said: how the user put it, for errors.

    Raises:
        SettingError: if the key runs through something that is no table.
    """
    path = key.split(".")
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise SettingError(f"{said}: {part!r} holds a list or a value; set it whole, as TOML")
    tree[path[-1]] = value


def _override(tree: Tree, text: str) -> None:
    key, separator, value = text.partition("=")
    path = key.strip()
    if not separator or not all(path.split(".")):
        raise SettingError(f"--set {text!r} is not key=value; write for example --set privacy.epsilon=2")
    put(tree, path, _toml_value(value.strip(), text), f"--set {text!r}")


def _toml_value(value: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError) as error:  # also for thousands of digits, or of brackets
        if _BARE_WORD.fullmatch(value):
            return value
        raise SettingError(
            f"--set {quoted(text)}: {quoted(value)} is neither a TOML value nor a bare word; quote it"
        ) from error


def explain(error: ValidationError) -> str:
    """The first thing wrong with settings, in one line."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("table", "list", "span")]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        near = nearest(key, [s.key for s in all_settings()])
        hint = f"did you mean {near}?" if near else "`securekd config` lists every setting"
        return f"unknown setting {key!r}; {hint}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f" = {quoted(first['input'])}"
    return f"{key}{value}: {message}; `securekd config` tells its range"


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that is most like one that is not known, or None."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return near[0] if near else None


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        tables = [a for a in _alternatives(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        if tables and not name.endswith("model"):
            for table in tables:
                yield from _walk(table, f"{key}." if table is not _listed(field) else f"[[{key}]].")
        else:
            yield Setting(key, _type_name(field.annotation), _default(field), _range(field), field.description or "")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if hasattr(annotation, "__metadata__"):
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(x for a in get_args(annotation) for x in _alternatives(a))
    if get_origin(annotation) is tuple:
        return tuple(a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, BaseModel))
    return (annotation,)


def _listed(field: FieldInfo) -> Any:
    for annotation in get_args(field.annotation):
        inner = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
        if get_origin(inner) is tuple:
            return get_args(inner)[0]
    return None


def _type_name(annotation: Any) -> str:
    if hasattr(annotation, "__metadata__"):
        return _type_name(get_args(annotation)[0])
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(f'"{a}"' for a in args)
    if origin in (Union, UnionType):
        return " | ".join(_type_name(a) for a in args if a is not type(None))
    if origin is tuple:
        return f"list of {_type_name(args[0])}"
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "model"
    names = {str: "text", bool: "true | false", int: "integer", float: "number"}
    return names.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        value = [v.kind for v in value]
    return tomli_w.dumps({"v": value}).strip().removeprefix("v = ") if not isinstance(value, dict) else str(value)


def _range(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥"}
    found = [f"{sign} {getattr(m, name)}" for m in field.metadata for name, sign in signs.items() if hasattr(m, name)]
    return ", ".join(found)
