"""The keys of the configuration (CW 10.2) as one table; validation and schema both read it."""

from __future__ import annotations

from typing import Any

from crush_trio import limits
from crush_trio.config.shapes import (
    Anything,
    Flag,
    ListOf,
    MapOf,
    MismatchError,
    Number,
    Shape,
    Short,
    Table,
    Text,
    checked,
    json_schema,
)
from crush_trio.http.hosts import read_target
from crush_trio.protocol.errors import ConfigError

PROVIDER_TYPES = (
    "openai",
    "openai-compat",
    "openrouter",
    "vercel",
    "anthropic",
    "google",
    "azure",
    "bedrock",
    "google-vertex",
    "hyper",
    "litellm",
    "llamacpp",
    "lmstudio",
    "ollama",
    "omlx",
)

_NAME = Text("A name.")
_TEMPLATE = Text("A value; may hold $VARIABLES.", secret=True, expands=True)
_SAMPLING: dict[str, Shape] = {
    "temperature": Number("Sampling temperature.", whole=False, maximum=2),
    "top_p": Number("Nucleus sampling bound.", whole=False, maximum=1),
    "top_k": Number("Number of candidates to sample from."),
    "frequency_penalty": Number("Penalty on frequent tokens.", whole=False, minimum=-2, maximum=2),
    "presence_penalty": Number(
        "Penalty on tokens already used.", whole=False, minimum=-2, maximum=2
    ),
    "provider_options": Anything("Passed to the provider unchanged."),
}

SELECTED_MODEL = Table(
    "The model of one slot.",
    {
        "model": Text("The model's id at its provider."),
        "provider": Text("The provider's id."),
        "reasoning_effort": Text("How hard a reasoning model should think."),
        "think": Flag("Let the model think before it answers."),
        "max_tokens": Number("Most tokens of one answer."),
        **_SAMPLING,
    },
)

MODEL = Table(
    "A model a provider offers.",
    {
        "id": Text("The id requests use."),
        "name": Text("The name people read."),
        "cost_per_1m_in": Number("US dollars per million input tokens.", whole=False),
        "cost_per_1m_out": Number("US dollars per million output tokens.", whole=False),
        "cost_per_1m_in_cached": Number("The same, written to the cache.", whole=False),
        "cost_per_1m_out_cached": Number("The same, read from the cache.", whole=False),
        "context_window": Number("Tokens the model can see; 0 is unknown."),
        "default_max_tokens": Number("Most tokens of one answer if nobody says."),
        "can_reason": Flag("The model can think before it answers."),
        "reasoning_levels": ListOf("Values `reasoning_effort` may have.", _NAME),
        "default_reasoning_effort": Text("Effort if nobody says."),
        "supports_attachments": Flag("The model takes images."),
        "supports_tools": Flag("The model can call tools; one that cannot gets no prompts."),
        "options": Table("Defaults for requests.", _SAMPLING),
    },
)

TOKEN = Table(
    "An OAuth token.",
    {
        "access_token": Text("Sent with requests.", secret=True),
        "refresh_token": Text("Renews the access token.", secret=True),
        "expires_in": Number("Life of the access token in seconds."),
        "expires_at": Number("Its end in unix seconds."),
        "client": Table(
            "The OAuth client the token belongs to.",
            {
                "client_id": Text("Its public id."),
                "client_secret": Text("Its secret.", secret=True),
                "auth_url": Text("Where people log in.", url=True),
                "token_url": Text("Where tokens are renewed.", url=True),
                "auth_style": Number("How the client shows who it is.", minimum=None),
            },
        ),
    },
)

PROVIDER = Table(
    "A provider of models.",
    {
        "id": Text("Its id; the key of this object if left out."),
        "name": Text("The name people read."),
        "base_url": Text("Where its API is; may hold $VARIABLES.", url=True, expands=True),
        "type": Text("Which API it speaks.", choices=PROVIDER_TYPES),
        "api": Text("Which of OpenAI's interfaces it speaks.", choices=("chat", "responses")),
        "api_key": Text("The key, best as $VARIABLE.", secret=True, expands=True),
        "api_version": Text("Version of the API, where addresses name one (Azure).", expands=True),
        "oauth": TOKEN,
        "disable": Flag("Do not use this provider."),
        "system_prompt_prefix": Text("Put before the system prompt."),
        "extra_headers": MapOf("Headers sent with each request.", _TEMPLATE),
        "extra_body": Anything("Members added to each request."),
        "provider_options": Anything("Passed to the provider unchanged."),
        "aws_auth_refresh": Text("Command that renews AWS credentials.", secret=True),
        "flat_rate": Flag("Calls cost nothing extra."),
        "discover_models": Flag("Ask the provider for its models."),
        "models": ListOf("Models it offers.", MODEL),
    },
)

_ARGS = ListOf("Arguments of the command.", _TEMPLATE)
_ENV = MapOf("Environment of the process.", _TEMPLATE)

MCP = Table(
    "A server of tools.",
    {
        "type": Text("How it is reached.", choices=("stdio", "sse", "http")),
        "command": Text("The program of a stdio server.", expands=True),
        "args": _ARGS,
        "env": _ENV,
        "url": Text("Address of an http or sse server.", url=True, expands=True),
        "headers": MapOf("Headers sent to it.", _TEMPLATE),
        "disabled": Flag("Do not start or connect it."),
        "disabled_tools": ListOf("Tools of it that are left out.", _NAME),
        "enabled_tools": ListOf("The only tools of it that are offered.", _NAME),
        "timeout": Number("Seconds one call may take."),
        "oauth": Flag("Log in with OAuth."),
        "oauth_client_id": Text("OAuth client id."),
        "oauth_client_secret": Text("OAuth client secret.", secret=True),
        "oauth_callback_port": Number("Local port the login returns to."),
        "oauth_token": TOKEN,
    },
)

LSP = Table(
    "A language server.",
    {
        "disabled": Flag("Do not start it."),
        "command": Text("Its program.", expands=True),
        "args": _ARGS,
        "env": _ENV,
        "filetypes": ListOf("File types it is used for.", _NAME),
        "root_markers": ListOf("Files that mark a project it is for.", _NAME),
        "init_options": Anything("Sent when it starts."),
        "options": Anything("Its settings."),
        "timeout": Number("Seconds it may take to start."),
    },
)

HOOK = Table(
    "A command of the user's that runs at certain moments.",
    {
        "name": Text("Shown with what it decided; of an end of a run, in the log."),
        "matcher": Text("Regular expression found in the names of its tools.", regex=True),
        "command": Text("The shell command.", secret=True),
        "timeout": Number("Seconds it may take; 30 if left out or 0, at most 600."),
    },
    required=("command",),
)

TUI = Table(
    "Settings of terminal interfaces.",
    {
        "compact_mode": Flag("Use less room."),
        "diff_mode": Text("How changes are shown.", choices=("unified", "split")),
        "completions": Table(
            "Completion of file names.",
            {
                "max_depth": Number("Directories deep."),
                "max_items": Number("Most names offered."),
            },
        ),
        "transparent": Flag("Leave the background alone."),
        "scrollbar": Text("When it is drawn.", choices=("default", "always", "never")),
    },
)

_PATHS = Text("A file or directory.")


def _read_place(text: str) -> str:
    if not text.startswith(("/", "~/")) or "\0" in text:
        raise ValueError("expected an absolute path, or one that begins with ~/")
    return text


OPTIONS = Table(
    "Everything that is not a provider, server or permission.",
    {
        "context_paths": ListOf("Files put before the model, besides the usual ones.", _PATHS),
        "global_context_paths": ListOf("The same for every workspace.", _PATHS),
        "skills_paths": ListOf("Directories of skills.", _PATHS),
        "tui": TUI,
        "debug": Flag("Log more."),
        "debug_lsp": Flag("Log language servers."),
        "disable_auto_summarize": Flag("Never shorten a long conversation by itself."),
        "data_directory": Text("Crush's data directory; has no effect here, use --data-dir."),
        "disabled_tools": ListOf("Tools that are not offered to models.", _NAME),
        "ca_file": Text("Certificates (PEM) that count besides the system's; an absolute path."),
        "catalogue_url": Text("Where the list of providers and models is renewed from.", url=True),
        "disable_provider_auto_update": Flag("Do not renew the list of providers."),
        "disable_default_providers": Flag("Use only providers named here."),
        "attribution": Table(
            "How commits say that a tool took part.",
            {
                "trailer_style": Text(
                    "Kind of trailer.", choices=("none", "co-authored-by", "assisted-by")
                ),
                "co_authored_by": Flag("Older form of `trailer_style`."),
                "generated_with": Flag("Add a line that names the program."),
            },
        ),
        "disable_metrics": Flag("Nothing is ever sent; accepted for compatibility."),
        "initialize_as": Text("File that a project's description is written to."),
        "auto_lsp": Flag("Start language servers that are installed."),
        "progress": Flag("Show progress on a terminal."),
        "notifications": Text(
            "How attention is asked for.", choices=("auto", "native", "osc", "bell", "disabled")
        ),
        "disabled_skills": ListOf("Skills that are left out.", _NAME),
        "fetch_allow": ListOf(
            "Hosts, addresses and networks that are not public and that fetch may reach.",
            Text("HOST, HOST:PORT, an address or a network.", reads=read_target),
        ),
        "sandbox": Short(
            "What commands of runs may touch; a string is its mode.",
            "mode",
            Table(
                "What commands of runs may touch.",
                {
                    "mode": Text(
                        "Off, nothing written, or only the workspace.",
                        choices=("off", "read-only", "workspace-write"),
                    ),
                    "network": Flag("Leave them the network."),
                    "writable": ListOf(
                        "Further places they may write, absolute or ~/….",
                        Text("A path.", reads=_read_place),
                    ),
                },
            ),
        ),
        "env_allow": ListOf("Further environment variables tool processes get.", _NAME),
    },
)

_PERIOD = Number("Time limit in nanoseconds.")

CONFIG = Table(
    "Configuration of crush-trio.",
    {
        "$schema": Text("Address of this schema."),
        "models": Table(
            "Models that are used.", {"large": SELECTED_MODEL, "small": SELECTED_MODEL}
        ),
        "recent_models": MapOf("Models used before.", ListOf("Newest first.", SELECTED_MODEL)),
        "providers": MapOf("Providers of models by id.", PROVIDER),
        "mcp": MapOf("Servers of tools by name.", MCP),
        "lsp": MapOf("Language servers by name.", LSP),
        "options": OPTIONS,
        "permissions": Table(
            "What tools may do without being asked.",
            {
                "allowed_tools": ListOf("Allowed without asking.", Text("A pattern.")),
                "denied_tools": ListOf("Never allowed.", Text("A pattern.")),
                "on_deny": Text(
                    "What a person's denial does: stop the turn, or let the model continue.",
                    choices=("stop", "continue"),
                ),
                "deadline_s": Number(
                    "How long a request waits for a person; then it is denied.",
                    whole=False,
                    minimum=limits.ASK_DEADLINE_MIN_S,
                    maximum=limits.ASK_DEADLINE_MAX_S,
                ),
            },
        ),
        "tools": Table(
            "Settings of single tools.",
            {
                "ls": Table(
                    "The tool `ls`.",
                    {
                        "max_depth": Number("Directories deep."),
                        "max_items": Number("Most entries listed."),
                    },
                ),
                "grep": Table("The tool `grep`.", {"timeout": _PERIOD}),
                "glob": Table("The tool `glob`.", {"timeout": _PERIOD}),
            },
        ),
        "hooks": Table(
            "Commands run at certain moments.",
            {
                "PreToolUse": ListOf("Before a tool is called; may refuse, allow, change.", HOOK),
                "PostToolUse": ListOf("After a tool was called.", HOOK),
                "Stop": ListOf("After a run's last step, before it has ended.", HOOK),
            },
        ),
        "env": MapOf("Variables set at start.", Text("A value.", secret=True)),
    },
)

NO_EFFECT = (
    ("recent_models",),
    ("mcp",),
    ("lsp",),
    ("env",),
    ("tools",),
    ("providers", "*", "aws_auth_refresh"),
    ("options", "skills_paths"),
    ("options", "disabled_skills"),
    ("options", "global_context_paths"),
    ("options", "data_directory"),
    ("options", "debug"),
    ("options", "debug_lsp"),
    ("options", "disable_provider_auto_update"),
    ("options", "attribution"),
    ("options", "disable_metrics"),
    ("options", "auto_lsp"),
    ("options", "progress"),
    ("options", "notifications"),
)
"""Keys that are understood and kept, but change nothing in this version; ``*`` is any name."""


def validated(document: Any, source: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A parsed file without its nulls, and the paths of its unknown keys.

    Args:
        document: Parsed JSON.
        source: The file's name, for the message.

    Raises:
        ConfigError: One sentence with file, path and expectation; the value is never quoted,
            since it may be a secret.
    """
    unknown: list[str] = []
    try:
        clean = checked(CONFIG, document, "$", unknown)
    except MismatchError as exc:
        raise ConfigError(f"{source}: {exc}.") from exc
    return clean, tuple(unknown)


def config_json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "crush-trio configuration",
        **json_schema(CONFIG),
    }
