"""``crush-trio run``: its options, its prompt, and nothing heavy."""

from __future__ import annotations

import os
import stat
import sys
from typing import Any, NamedTuple

import click

from crush_trio import limits
from crush_trio.cli.completing import model_names, session_ids
from crush_trio.cli.exit_codes import epilog
from crush_trio.cli.options import (
    Finite,
    ServerFlags,
    absolute_model,
    directory_option,
    reconnect_option,
    server_options,
)

PERMISSION_MODES = ("ask", "deny", "allow")
SANDBOX_MODES = ("off", "read-only", "workspace-write")
IF_BUSY = ("enqueue", "steer", "interrupt", "reject")
ON_DISCONNECT = ("continue", "cancel")
FORMATS = ("text", "json", "stream-json")


class RunOptions(NamedTuple):
    """Everything ``run`` was asked for, checked as far as one can without a server."""

    flags: ServerFlags
    prompt: str
    run_id: str
    cwd: str
    session: str | None
    body: dict[str, Any]
    format: str
    detach: bool
    wait_timeout: float | None
    reconnect_timeout: float
    require_model: bool
    last_message: str | None
    quiet: bool
    verbose: bool
    color: bool
    named: bool = False


_positive = Finite(min=0, min_open=True)
_count = click.IntRange(min=1)


@click.command("run", epilog=epilog())
@click.argument("prompt", nargs=-1)
@click.option(
    "-s", "--session", metavar="ID|latest", shell_complete=session_ids,
    help="Go on with this session.",
)  # fmt: skip
@click.option("-c", "--continue", "continue_", is_flag=True, help="Go on with the last session.")
@click.option("--fork", is_flag=True, help="Go on in a copy of the session.")
@click.option(
    "-m", "--model", metavar="PROVIDER/MODEL", shell_complete=model_names,
    help="The model; script/FILE plays one.",
)  # fmt: skip
@click.option("--require-model", is_flag=True, help="Fail without a real language model.")
@click.option("--record", metavar="FILE", help="Write what the model says as a script.")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="Attach a file.")
@click.option("--if-busy", type=click.Choice(IF_BUSY), help="With a busy session [enqueue].")
@click.option("--run-id", metavar="ID", help="Name of the run; the same again starts nothing.")
@click.option("-d", "--detach", is_flag=True, help="Print the run's id and leave.")
@click.option("--wait/--no-wait", default=True, hidden=True)
@click.option("--wait-timeout", type=_positive, metavar="S", help="Stop waiting after S seconds.")
@click.option("--timeout", type=_positive, metavar="S", help="The run may take S seconds.")
@click.option("--idle-timeout", type=_positive, metavar="S", help="The model may be silent for S.")
@click.option("--max-steps", type=_count, metavar="N", help="Model requests of the run.")
@click.option("--max-tool-calls", type=_count, metavar="N", help="Tool calls of the run.")
@click.option("--max-cost-usd", type=_positive, metavar="X", help="Cost of the run.")
@click.option("--no-compact", is_flag=True, help="Never summarise by itself; too long fails.")
@click.option("--permission-mode", type=click.Choice(PERMISSION_MODES), help="[deny]")
@click.option("--allow-tool", multiple=True, metavar="PATTERN", help="As in 'bash(make test)'.")
@click.option("--deny-tool", multiple=True, metavar="PATTERN", help="Beats --allow-tool.")
@click.option("-y", "--yolo", is_flag=True, help="Same as --permission-mode allow.")
@click.option(
    "--sandbox", type=click.Choice(SANDBOX_MODES), help="What its commands may touch at all [off]."
)
@click.option("--on-disconnect", type=click.Choice(ON_DISCONNECT), help="[continue]")
@click.option(
    "--output-format", "format_", type=click.Choice(FORMATS), default="text", show_default=True,
    help="What stdout gets.",
)  # fmt: skip
@click.option("--json", "stream_json", is_flag=True, help="Same as --output-format stream-json.")
@click.option("-o", "--output-last-message", metavar="FILE", help="Write the answer there too.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Progress even without a terminal.")
@click.option("--no-color", is_flag=True, help="No colors in the progress.")
@click.option("--tls-ca", metavar="FILE", help="Certificate authority of the server.")
@directory_option
@reconnect_option
@server_options
def command(
    *,
    prompt: tuple[str, ...],
    flags: ServerFlags,
    session: str | None,
    continue_: bool,
    run_id: str | None,
    stream_json: bool,
    format_: str,
    no_color: bool,
    output_last_message: str | None,
    detach: bool,
    wait: bool,
    **others: Any,
) -> int:
    """Send PROMPT (or stdin, with -) and stay until its run has ended.

    stdout gets the answer alone, or JSON alone. Stdin is read only with -, or when there is no
    PROMPT and it is a pipe or a file.
    """
    _refuse_what_is_missing(fork=others["fork"], tls_ca=others["tls_ca"])
    if session is not None and continue_:
        raise click.UsageError("-s and -c both name a session; give one of them.")
    from crush_trio.protocol.ids import is_run_id, new_id  # uuid costs a third of --help

    if run_id is not None and not is_run_id(run_id):
        raise click.BadParameter("1 to 128 of A-Z a-z 0-9 . _ : -", param_hint="--run-id")
    options = RunOptions(
        flags=flags,
        prompt=read_prompt(prompt),
        run_id=run_id or new_id(),
        cwd=others["cwd"],
        session="latest" if continue_ else session,
        body=_body(others),
        format="stream-json" if stream_json else format_,
        detach=detach or not wait,
        wait_timeout=others["wait_timeout"],
        reconnect_timeout=others["reconnect_timeout"],
        require_model=others["require_model"],
        last_message=_writable(output_last_message),
        quiet=others["quiet"],
        verbose=others["verbose"],
        color=not no_color and "NO_COLOR" not in os.environ,
        named=run_id is not None,
    )
    import trio

    from crush_trio.cli.run_flow import run_prompt

    return trio.run(run_prompt, options)


def _refuse_what_is_missing(*, fork: bool, tls_ca: str | None) -> None:
    if fork:
        raise click.UsageError("--fork: this version cannot copy sessions; leave it out.")
    if tls_ca is not None:
        raise click.UsageError("--tls-ca: this version speaks no TLS; use the unix socket.")


def read_prompt(words: tuple[str, ...]) -> str:
    """The prompt: the words joined, with stdin in front if one of them is ``-``.

    Without words stdin is the prompt if it is a pipe or a file. Never is it read otherwise: a
    parent that leaves a pipe open must not hang us.

    Raises:
        click.UsageError: There is no prompt, or it is not text.
    """
    from_stdin = "-" in words
    text = " ".join(word for word in words if word != "-")
    if not words:
        mode = os.fstat(0).st_mode
        from_stdin = stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
    if from_stdin:
        piped = _read_stdin()
        text = f"{piped}\n\n{text}" if text else piped
    if not text.strip():
        raise click.UsageError("no prompt: give one as an argument, or pipe one to stdin.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise click.UsageError("the prompt is not valid UTF-8.") from exc
    return text


def _read_stdin() -> str:
    raw = sys.stdin.buffer.read(limits.BODY_AGENT_BYTES + 1)
    if len(raw) > limits.BODY_AGENT_BYTES:
        raise click.UsageError(f"stdin is larger than {limits.BODY_AGENT_BYTES} bytes.")
    try:
        return raw.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as exc:
        raise click.UsageError(f"stdin is not valid UTF-8 (byte {exc.start}).") from exc


def _body(given: dict[str, Any]) -> dict[str, Any]:
    """The part of the ``PromptRequest`` that the flags decide."""
    import uuid

    if given["yolo"] and given["permission_mode"] not in (None, "allow"):
        raise click.UsageError("-y and --permission-mode contradict each other.")
    wanted: dict[str, Any] = {
        "if_busy": given["if_busy"],
        "model": absolute_model(given["model"]),
        "permission_mode": "allow" if given["yolo"] else given["permission_mode"] or "deny",
        "allow_tools": list(given["allow_tool"]),
        "deny_tools": list(given["deny_tool"]),
        "sandbox": given["sandbox"],
        "on_disconnect": given["on_disconnect"],
        "compact": False if given["no_compact"] else None,
        "record": os.path.abspath(given["record"]) if given["record"] is not None else None,
        # Whose loss counts: the stream is opened under the same name.
        "client_id": str(uuid.uuid4()) if given["on_disconnect"] == "cancel" else None,
        "attachments": _attachments(given["files"]),
        "limits": _drop_empty(
            {
                "timeout_s": given["timeout"],
                "idle_timeout_s": given["idle_timeout"],
                "max_steps": given["max_steps"],
                "max_tool_calls": given["max_tool_calls"],
                "max_cost_usd": given["max_cost_usd"],
            }
        ),
    }
    return _drop_empty(wanted)


def _drop_empty(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item not in (None, [], {})}


def _attachments(paths: tuple[str, ...]) -> list[dict[str, str]]:
    if not paths:
        return []
    import base64
    import mimetypes

    found, size = [], 0
    for path in paths:
        try:
            with open(path, "rb") as file:
                content = file.read(limits.ATTACHMENT_BYTES + 1)
        except OSError as exc:
            raise click.BadParameter(f"{path}: {exc.strerror}", param_hint="-f") from exc
        size += len(content)
        if size > limits.ATTACHMENT_BYTES:
            raise click.BadParameter(
                f"more than {limits.ATTACHMENT_BYTES} bytes in all", param_hint="-f"
            )
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        found.append(
            {
                "file_path": os.path.abspath(path),
                "file_name": os.path.basename(path),
                "mime_type": kind,
                "content": base64.b64encode(content).decode("ascii"),
            }
        )
    return found


def _writable(path: str | None) -> str | None:
    """``path`` made absolute, after trying it: the answer must not be lost at the end."""
    if path is None:
        return None
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
    except OSError as exc:
        raise click.BadParameter(f"{path}: {exc.strerror}", param_hint="-o") from exc
    return os.path.abspath(path)
