"""Expansion of variables in values (CW 10.3)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from crush_trio.config.expand import expand, has_command, layered, literal
from crush_trio.protocol.errors import ConfigError

ENVIRON = {"KEY": "k1", "EMPTY": "", "HOST_2": "h", "DOLLAR": "$KEY"}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("", ""),
        ("plain } text", "plain } text"),
        ("$KEY", "k1"),
        ("${KEY}", "k1"),
        ("Bearer $KEY.", "Bearer k1."),
        ("$KEY${HOST_2}x", "k1hx"),
        ("$KEYS", ""),
        ("$UNSET", ""),
        ("${UNSET:-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${KEY:-x}", "k1"),
        ("${UNSET:-}", ""),
        ("${UNSET:-a:-b c}", "a:-b c"),
        ("${UNSET:-${EMPTY:-$KEY}}!", "k1!"),
        (r"\$KEY", "$KEY"),
        (r"a\b\\", r"a\b\\"),
        (r"${UNSET:-\$}", "$"),
        ("$DOLLAR", "$KEY"),
    ],
)
def test_variables_become_their_values_and_nothing_else_changes(template: str, value: str) -> None:
    assert expand(template, ENVIRON) == value


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("secret$", "a $ without the name of a variable"),
        ("$1", "a $ without the name of a variable"),
        ("$$", "a $ without the name of a variable"),
        ("${}", "a $ without the name of a variable"),
        ("${KEY", "only ${NAME} and ${NAME:-default}"),
        ("${KEY-x}", "only ${NAME} and ${NAME:-default}"),
        ("${KEY:+x}", "only ${NAME} and ${NAME:-default}"),
        ("${UNSET:-secret", "a ${ without its }"),
        ("${UNSET:-" * 70 + "}" * 70, "nested deeper than 64"),
        ("$(cat secret)", "allowed in your own and in trusted files only"),
        ("${KEY:-$(cat secret)}", "allowed in your own and in trusted files only"),
    ],
)
def test_what_cannot_be_expanded_is_one_sentence_that_quotes_nothing(
    template: str, words: str
) -> None:
    """G12, G14."""
    with pytest.raises(ConfigError) as caught:
        expand(template, ENVIRON, where="providers.p.api_key")
    assert str(caught.value).startswith("providers.p.api_key: ")
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def _shown(command: str, environ: Mapping[str, str]) -> str:
    return f"<{command}|{environ.get('KEY', '')}>"


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("$(a b)", "<a b|k1>"),
        ("Bearer $(a) $KEY", "Bearer <a|k1> k1"),
        ("$(a $(b) (c))", "<a $(b) (c)|k1>"),
        ("$(echo ')')", "<echo ')'|k1>"),
        ('$(echo ")" "$(b ")")")', '<echo ")" "$(b ")")"|k1>'),
        (r"$(echo \))", r"<echo \)|k1>"),
        ("$()", "<|k1>"),
        (r"\$(a)", "$(a)"),
        ("${UNSET:-$(a)}", "<a|k1>"),
        ("${UNSET:-$(echo })}", "<echo }|k1>"),
    ],
)
def test_a_command_is_the_shells_own_text_up_to_its_parenthesis(template: str, value: str) -> None:
    assert expand(template, ENVIRON, run_command=_shown) == value


def test_a_command_that_is_not_needed_is_not_run() -> None:
    run: list[str] = []

    def note(command: str, environ: Mapping[str, str]) -> str:
        run.append(command)
        return "x"

    assert expand("${KEY:-$(a)}${UNSET:-${KEY:-$(b)}}", ENVIRON, run_command=note) == "k1k1"
    assert run == []
    assert has_command("${KEY:-$(a)}")
    assert not has_command(r"\$(a) ${KEY}")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("$(secret", "a $( without its )"),
        ("$(echo 'secret)", "a $( without its )"),
        ('$(echo "secret)', "a $( without its )"),
        ("$(secret" + "\\", "a $( without its )"),
        ("$(a)" * 5, "more than 4 commands in one value"),
    ],
)
def test_a_broken_command_is_one_sentence_and_runs_nothing(template: str, words: str) -> None:
    """G14."""
    with pytest.raises(ConfigError) as caught:
        expand(template, ENVIRON, run_command=_shown, where="f: p")
    assert str(caught.value) == f"f: p: {words}."


def test_an_error_of_a_command_names_the_place_of_its_value() -> None:
    def fail(command: str, environ: Mapping[str, str]) -> str:
        raise ConfigError("a $(command) ended with exit code 1.")

    with pytest.raises(ConfigError) as caught:
        expand("$(secret)", {}, run_command=fail, where="providers.p.api_key")
    assert str(caught.value) == "providers.p.api_key: a $(command) ended with exit code 1."


def test_of_several_environments_the_first_that_has_a_variable_counts() -> None:
    both = layered({"A": "mine", "EMPTY": ""}, {"A": "its", "B": "its", "EMPTY": "x"})
    assert expand("$A $B$EMPTY", both) == "mine its"


@pytest.mark.parametrize("text", ["plain", "a$b", "$(rm)", r"\$", "$", "${A:-b}"])
def test_a_literal_comes_out_of_the_expansion_as_it_was(text: str) -> None:
    assert expand(literal(text), {"b": "x", "A": "x"}) == text
