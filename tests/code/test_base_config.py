"""Strict configuration: typos name the nearest key, presets and overrides never invent keys."""

from __future__ import annotations

import pytest

from components.base.config import (
    Config,
    difference,
    fingerprint,
    load_params,
    lookup,
    parse,
    with_overrides,
    with_preset,
)
from components.base.errors import ConfigError


class Inner(Config):
    """A nested block."""

    learning_rate: float = 0.1


class Outer(Config):
    """A block."""

    steps: int
    inner: Inner = Inner()


def test_known_values_parse_and_are_frozen() -> None:
    block = parse(Outer, {"steps": 3, "inner": {"learning_rate": 0.5}}, "pretrain")
    assert block.inner.learning_rate == 0.5
    with pytest.raises(ValueError, match="frozen"):
        block.steps = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "rule", "text"),
    [
        ({"steps": 1, "stepz": 2}, "params.unknown", "did you mean 'steps'"),
        ({"steps": 1, "inner": {"learnig_rate": 2}}, "params.unknown", "did you mean 'learning_rate'"),
        ({"steps": "many"}, "params.int_parsing", "pretrain.steps"),
        ({}, "params.missing", "pretrain.steps"),
    ],
)
def test_mistakes_are_typed_and_short(values: dict[str, object], rule: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, values, "pretrain")
    assert caught.value.rule == rule
    assert text in caught.value.render()
    assert len(caught.value.render().splitlines()) < 5
    assert "many" not in caught.value.render(), "an error does not repeat a value that may be PHI"


def test_overrides_copy_and_never_add() -> None:
    values = {"a": {"b": 1}, "presets": {"big": {"a.b": 9}}}
    changed = with_overrides(values, {"a.b": 2})
    assert (changed["a"]["b"], values["a"]["b"]) == (2, 1)
    assert with_preset(values, "big")["a"]["b"] == 9
    for dotted in ("a.c", "x", "a.b.c"):
        with pytest.raises(ConfigError, match="unknown parameter"):
            with_overrides(values, {dotted: 1})


def test_a_preset_extends_another() -> None:
    values = {
        "a": {"b": 1, "c": 1},
        "presets": {"big": {"a.b": 9, "a.c": 9}, "bigger": {"extends": "big", "a.c": 10}},
    }
    assert with_preset(values, "bigger")["a"] == {"b": 9, "c": 10}
    values["presets"] = {"one": {"extends": "two"}, "two": {"extends": "one"}, "lost": {"extends": "onne"}}
    with pytest.raises(ConfigError, match="extends itself"):
        with_preset(values, "one")
    with pytest.raises(ConfigError, match="onne"):
        with_preset(values, "lost")


def test_a_recipe_leaves_only_its_objectives_their_weights() -> None:
    objectives = {"a": {"weight": 2.0, "dim": 3}, "b": {}, "c": {"weight": 0.0}}
    values = {
        "pretrain": {"objectives": objectives},
        "presets": {"big": {"pretrain.objectives.a.dim": 9}},
        "recipes": {"only_a": ["a"], "with_c": ["a", "c"]},
    }
    changed = with_preset(values, "big/only_a")["pretrain"]["objectives"]
    assert changed == {"a": {"weight": 2.0, "dim": 9}, "b": {"weight": 0.0}, "c": {"weight": 0.0}}
    assert objectives["b"] == {}
    with pytest.raises(ConfigError, match="with_c asks for c"):
        with_preset(values, "big/with_c")
    with pytest.raises(ConfigError, match="only_a"):
        with_preset(values, "big/onlya")


def test_lookup_names_the_nearest_key() -> None:
    with pytest.raises(ConfigError, match=r"a\.learning_rate"):
        lookup({"a": {"learning_rate": 1}}, "a.learning_rat")


def test_fingerprint_ignores_order_and_difference_shows_leaves() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}}) == [
        "a.c: 2 -> 3",
        "a.d: (absent) -> 4",
    ]


def test_params_file_mistakes(tmp_path) -> None:
    for text, rule in ((None, "params.file"), ("a: [", "params.yaml"), ("just words", "params.yaml")):
        path = tmp_path / "params.yaml"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_params(path)
        assert caught.value.rule == rule
