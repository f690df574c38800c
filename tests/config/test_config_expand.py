"""Expansion of variables in values (CW 10.3)."""

from __future__ import annotations

import pytest

from crush_trio.config.expand import expand
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
        ("$(cat secret)", "allowed in your own configuration files only"),
        ("${KEY:-$(cat secret)}", "allowed in your own configuration files only"),
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


def test_a_command_is_never_run_and_a_trusted_file_is_told_so() -> None:
    with pytest.raises(ConfigError, match="not supported by this version"):
        expand("$(touch /tmp/x)", ENVIRON, allow_commands=True)
