"""Every number that bounds something, in one place; ``crush-trio config show`` prints them.

A constant's comment says what happens at the bound. Units are in the names.
"""

from __future__ import annotations

# --- acceptance ---------------------------------------------------------------------------
WAITING_RUNS_PER_SESSION = 100  # one more prompt is refused: 429 queue_full (contract 3)
RUN_ID_MAX_CHARS = 128  # a longer or otherwise invalid run id is 400 (contract 1)
WRITER_QUEUE_MAX = 10_000  # commits waiting for the writer; beyond it 503 overloaded (design 2)
REQUEUE_WITHIN_S = 15 * 60.0  # a queued run older than this at start ends lost, `stale` (G2)

# --- ending and cancelling ----------------------------------------------------------------
KILL_GRACE_S = 2.0  # between TERM and KILL for a process tree (G10)
KILL_TOTAL_S = 3.0  # after this what is still alive is named in processes.left (G10)
RUN_CLEANUP_S = 3.5  # a run's own cleanup (tools, model) after it was cancelled; then abandoned
SUB_AGENT_END_S = 4.0  # a cancelled run's sub-agent, all of it; then the run ends without waiting
SUB_AGENT_AGAIN_S = 0.1  # until then a cancel that the store was too busy to take is tried again

# --- shutdown (G11) -----------------------------------------------------------------------
SHUTDOWN_TIMEOUT_S = 10.0  # whole shutdown; the watchdog exits 70 one second later
SHUTDOWN_RUNS_S = 5.0
SHUTDOWN_SUBSCRIBERS_S = 1.0
SHUTDOWN_HTTP_S = 1.0
SHUTDOWN_TOOLS_S = 1.0  # what is still in the server's cgroup; then the next start ends it
SHUTDOWN_STORE_S = 2.0
WATCHDOG_EXTRA_S = 1.0

# --- store --------------------------------------------------------------------------------
BUSY_TIMEOUT_S = 5.0  # a locked database is waited for this long (contract 3)
DEAD_HOLDER_S = 3.0  # for a dead server's lock to go with the last of its forks; then it is in use
DEAD_HOLDER_LOOK_S = 0.02  # between two looks whether it has gone
GROUP_COMMIT_MAX = 256  # commits joined into one transaction; the rest wait for the next
DISK_FULL_RETRY_S = 1.0  # a terminal commit on a full disk is tried again this often, until it fits
EVENT_RETENTION_S = 7 * 24 * 3600.0  # older events go, except an open run's (G8)
EVENT_RETENTION_COUNT = 200_000  # per workspace; more go, except an open run's (G8)
EVENT_PAGE = 500  # events read from the table at once
EVENT_PAGE_BYTES = 1024 * 1024  # the same bound by size; the page ends early
EVENT_SCAN = 5_000  # events looked at for one page; a rare selection gives a short page
RETENTION_EVERY = 64  # after this many events of a workspace the writer looks for old ones
RETENTION_BATCH = 500  # old events removed at once; the rest at the next look
QUICK_CHECK_BYTES = 64 * 1024 * 1024  # a larger database is not checked after an unclean end
WAL_KEEP_BYTES = 64 * 1024 * 1024  # a larger write-ahead log is cut after a checkpoint
CLOSING_BUSY_S = 0.5  # at the end a foreign reader is waited for this long; its log then stays
NO_SPACE_BYTES = 64 * 1024  # with less free, failing to grow SQLite's shared index is a full disk
READER_THREADS = 4  # concurrent store reads; more wait
TEXT_CHECKPOINT_S = 1.0  # open text is written to its row at most this often (G8)

# --- feed and websocket -------------------------------------------------------------------
FEED_ENTRIES = 4_096  # a reader further behind goes on from the table (G8)
FEED_BYTES = 8 * 1024 * 1024  # the same bound by size
FRAME_JOIN_BYTES = 64 * 1024  # events joined into one websocket frame (contract 4)
FRAME_OUT_BYTES = 512 * 1024  # longer strings are cut and named in `truncated` (contract 4)
FRAME_IN_BYTES = 64 * 1024  # a larger frame from a client closes its socket (contract 4)
SNAPSHOT_INTERVAL_S = 0.033  # detail=snapshot: present state at most this often (contract 4)
DELTA_CHARS = 64 * 1024  # of text in one transient frame; more is split (at most 6 bytes each)
PING_INTERVAL_S = 20.0  # the server's application ping (contract 4)
PEER_SILENT_S = 60.0  # a peer that ever pinged is closed with 4408 after this (contract 4)
SEND_BLOCKED_S = 10.0  # a blocked send closes the connection (contract 4)
STREAMS_PER_SOCKET = 64  # workspaces on one `/v1/ws`; one more is an `error` object (contract 3)
TOOL_OUTPUT_LIVE_BYTES = 256 * 1024  # tool_output frames per call; the rest is only in the result

# --- HTTP ---------------------------------------------------------------------------------
BODY_AGENT_BYTES = 32 * 1024 * 1024  # agent and grant bodies; larger is 413 (contract 3)
BODY_BYTES = 1024 * 1024  # all other bodies; larger is 413
WAIT_MAX_S = 300.0  # GET /v1/runs/{r}?wait=S
LIST_LIMIT_DEFAULT = 50
LIST_LIMIT_MAX = 500  # a larger `limit` is 400
SNAPSHOT_MESSAGES_DEFAULT = 200
SNAPSHOT_MESSAGES_MAX = 2_000  # messages of one snapshot; a larger `messages` is 400
READ_MARK_CHARS = 4_096  # of the path of `filetracker/read`; a longer one is 400
READ_AHEAD_BYTES = 64 * 1024  # read behind a request being answered; then its peer goes unseen
KEEP_ALIVE_S = 60.0  # an idle connection is closed after this

# --- workspaces ---------------------------------------------------------------------------
IDLE_TIMEOUT_S = 600.0  # an unused workspace closes (contract 3)
IDLE_EXIT_S = 600.0  # an auto-started server with nothing to do exits (contract 6)
IDLE_LOOK_S = 5.0  # an auto-started server with something to do looks again this much later
CREATE_HOLD_S = 30.0  # to open a stream after a create; then the client's hold is over (R23)
DETACH_GRACE_S = 10.0  # to come back after a client's last stream; then its hold is over (R24)
RETIRED_CLIENTS = 10_000  # retired client ids remembered; the oldest may come again (R27)
DISCONNECT_GRACE_S = 3.0  # on_disconnect=cancel: a client may come back within this

# --- turn ---------------------------------------------------------------------------------
MAX_STEPS = 200  # steps of one run when the prompt names no limit; then outcome limited
CHARS_PER_TOKEN = 4  # where a provider does not count: streamed characters are tokens (CW 5.11)
COMPACTION_LARGE_WINDOW_TOKENS = 200_000  # R63: a larger window is summarised when
COMPACTION_LEFT_TOKENS = 20_000  # so many tokens are left of it,
COMPACTION_LEFT_SHARE = 0.2  # any other when this share of it is left
COMPACTION_ROUNDS = 2  # summaries in a row that did not help; then the run ends context_overflow
SUMMARY_TRIES = 5  # requests for one summary, each with less to read; then context_overflow
SUMMARY_LEAST_SHARE = 0.1  # of the window; a conversation that is not more is not summarised
SUMMARY_READ_SHARE = 0.9  # of the window for what is summarised; what is more is not asked whole
SUMMARY_OUTPUT_CHARS = 200  # a longer tool output is left out when a summary request was too long
SUMMARY_TEXT_CHARS = 8_000  # of a text, when half was too long; a quarter of it each further try
MESSAGE_TOKENS = 4  # what a message costs beside its text: role and separators (estimate)
IMAGE_TOKENS = 1_600  # an image where nobody has counted it: about the largest a provider counts
PRUNE_SHARE = 0.6  # of the window by our estimate; then old tool output is not sent any more
PRUNE_LEAST_SHARE = 0.1  # of the window: a smaller block stays, the provider's cache is worth more
PRUNE_KEPT_STEPS = 3  # the output of so many last steps is always sent
PRUNE_OUTPUT_CHARS = 1_000  # a shorter output is always sent
ANSWER_MARGIN_SHARE = 0.02  # of the window, kept free between a request and its answer's limit
LATER_RUNS_PAGE = 100  # runs accepted after a summary's own are read so many at once, to the last
SHELL_TIMEOUT_S = 3600.0  # a person's command without `limits.timeout_s`; then it ends limited
KIND_WAIT_S = 600.0  # summarize and shell answer with the end at most so late; then 202
LOOP_WINDOW_STEPS = 10  # loop breaker looks at this many steps (R66)
LOOP_REPEATS = 5  # the same call and result more often than this ends the run (R66)
TITLE_S = 30.0  # a title is asked for this long; then the session keeps its first words (design 2)
TITLE_OUTPUT_TOKENS = 40  # what a model may answer (CW 5.12)
TITLE_PROMPT_CHARS = 4_000  # of the prompt shown to name it; the rest is left out
TITLE_ANSWER_CHARS = 16_000  # of the answer, thoughts included; the rest is not looked at
TITLE_MAX_CHARS = 100  # of a title; the rest is cut
CONTEXT_FILE_BYTES = 64 * 1024  # of each context file; the rest is cut and said so
CONTEXT_FILES_BYTES = 256 * 1024  # of all context files together
CONTEXT_FILES = 64  # context files in all; the rest is passed over
CONTEXT_DIRECTORY = 1_000  # entries of a directory named as context; the rest is not looked at

# --- asking a person ----------------------------------------------------------------------
ASK_DEADLINE_S = 10 * 60.0  # an unanswered permission is denied, a question cancelled (contract 7)
ASK_DEADLINE_MIN_S = 1  # the bounds of `permissions.deadline_s`; another value is refused
ASK_DEADLINE_MAX_S = 24 * 3600
ASK_QUIET_S = 0.3  # between what a person is shown and the prompt; keys pressed until then are lost
DENIAL_MESSAGE_CHARS = 2_000  # of what a person says with a denial; the rest is cut
TRUNCATED_CHARS = 256  # the shortest beginning of a long string that stands for it in an answer
QUESTIONS_MAX = 5  # of one call of `question`; more are refused (CW 6.2)
QUESTION_BYTES = 240  # of a question's text; a longer one is refused (CW 6.2)
QUESTION_DESCRIPTION_BYTES = 600  # of its description (CW 6.2)
CHOICES_MIN = 2  # of a choice question (CW 6.2)
CHOICES_MAX = 5
CHOICE_BYTES = 200  # of a choice's label, and of its description (CW 6.2)

# --- tools --------------------------------------------------------------------------------
TOOL_OUTPUT_COLUMNS = 30_000  # bash: of stdout and of stderr, head and tail halves (CW 7.3)
TOOL_OUTPUT_MEMORY_BYTES = 256 * 1024  # kept in memory per stream; more goes to the spill file
SPILL_CALL_BYTES = 64 * 1024 * 1024  # per call; the middle is dropped and counted (contract 5)
SPILL_TOTAL_BYTES = 2 * 1024 * 1024 * 1024  # in all; then nothing more is spilled (contract 5)
BASH_TIMEOUT_S = 600.0  # a foreground command; then it is killed and the result says so
VIEW_SECTION_BYTES = 200 * 1024  # CW 7.4
VIEW_LINES = 200  # CW 7.1 default
VIEW_LINE_CHARS = 2_000  # CW 7.4
EDIT_FILE_BYTES = 8 * 1024 * 1024  # a larger file is refused by edit, multiedit, write
LS_ENTRIES = 1_000  # CW 7.4
GLOB_RESULTS = 100  # CW 7.4
GLOB_TIMEOUT_S = 30.0  # CW 7.4
GREP_MATCHES = 100  # CW 7.4
GREP_TIMEOUT_S = 5.0  # CW 7.4
GREP_COLUMNS = 500  # CW 7.4
LAUNCHER_GIVES_UP_S = 2.7  # a launcher reports what it could not kill; within KILL_TOTAL_S
LAUNCHER_ANSWERS_S = 2.85  # a launcher silent for so long after a kill is killed with its tree
SANDBOX_PROBE_S = 5.0  # to try once whether commands can be confined; then this way is not used
SANDBOX_PROBE_AGAIN_S = 10.0  # a machine that could not confine commands is tried again after it
SANDBOX_PROCESSES = 2048  # a sandboxed user's processes beyond the machine's; then fork fails
SANDBOX_MEMORY_SHARE = 0.75  # of the machine's, for a sandboxed command in a cgroup; then it dies
SANDBOX_TMP_REMOVE_S = 0.4  # to remove a run's temporary files; then it goes on in its thread
CGROUP_PROBE_S = 2.0  # to try at start whether a cgroup can be used; then the subreaper is
KILLED_DIES_S = 0.1  # a killed process is looked for this long; then it is named as left
LAUNCHER_DROP_S = 0.1  # to end by itself after its last process; then it is ended by the kill
OUTPUT_CHUNK_BYTES = 64 * 1024  # read from a tool's pipe at once; more waits in the pipe
OUTPUT_PIPE_BYTES = 1024 * 1024  # a pipe that was found full holds so much, and is read so much
OUTPUT_PIECE_BYTES = 256 * 1024  # of a kept output read at once while it is sent to a client
OUTPUT_DRAIN_BYTES = 1024 * 1024  # still read from each pipe after the shell's exit; more is lost
OUTPUT_ABANDON_S = 0.5  # to read what a killed job still said; what comes later is lost
HOOK_TIMEOUT_S = 30.0  # a hook that names no `timeout`; then it is killed and decides nothing
HOOK_TIMEOUT_MAX_S = 600.0  # a longer `timeout` of a hook counts as this
HOOKS_AT_ONCE = 8  # hooks of one moment side by side; more wait for their turn
HOOKS_AT_END_S = 10.0  # all hooks of a run's end together; then they are killed and the run ends
HOOK_TEXT_CHARS = 10_000  # of a hook's reason, and of its context; the rest is cut
HOOK_PROBLEM_CHARS = 200  # of the last line a failed hook wrote; the rest is cut
HOOK_ENV_BYTES = 32 * 1024  # a longer argument is no variable of a hook; it is in its stdin
JOBS_RUNNING = 50  # background jobs of a workspace at once; one more is refused (CW 7.3)
JOBS_KEPT = 50  # ended jobs of a workspace that are kept; the oldest goes
JOB_KEPT_S = 8 * 3600.0  # an ended job is forgotten after this (CW 7.3)
JOB_FAST_FAILURE_S = 1.0  # a background job that ends within this is answered like a command
JOB_OUTPUT_BYTES = 64 * 1024  # of a job's output in one answer, unless `limit` says otherwise
JOB_OUTPUT_MAX_BYTES = 1024 * 1024  # a larger `limit` is 400
SPILL_FILES_PER_CALL_NAME = 100  # files of one spill name; then that call is not spilled
BASH_COMMAND_BYTES = 100 * 1024  # a longer command is refused (the kernel's bound is 128 KiB)
SAFE_GIT_TIMEOUT_S = 30.0  # a git command that needed no permission; then it is killed
SAFE_GIT_ENTRIES = 20_000  # looked at in a .git; with more of them git needs permission
SAFE_GIT_LINK_BYTES = 4096  # read of a file that names a git directory, as PATH_MAX
SAFE_COMMAND_BYTES = 4096  # a longer command line needs permission, whatever it does
SAFE_COMMAND_STEPS = 32  # simple commands in one; with more of them it needs permission
SHELL_PARSE_BYTES = 8 * 1024  # given to the shell's grammar; a longer line counts as not understood
SHELL_PARSE_SIGNS = 192  # operators and the like in it; the parser's cost grows with their square
SHELL_PARSE_DEPTH = 3  # command lines inside words of command lines (sh -c) that are read as well
VIEW_SCAN_BYTES = 256 * 1024 * 1024  # read to reach `offset`; beyond it the call says so
VIEW_IMAGE_BYTES = 5 * 1024 * 1024  # a larger image is not shown to the model
LS_TIMEOUT_S = 10.0  # then what was found so far is shown, marked as truncated
TREE_SUMMARY_FILES = 100_000  # counted by ls of all levels; then it says it is not complete
TREE_SUMMARY_S = 3.0  # the same bound by time
TREE_SUMMARY_ROWS = 30  # extensions, directories and largest files it names; the rest is left out
TREE_SUMMARY_NAMES = 200  # names in the directory itself, files first; the rest is left out
LS_DEPTH = 50  # directories deeper than this are not entered by ls, glob and grep
SEARCH_FILE_BYTES = 8 * 1024 * 1024  # grep skips larger files
SEARCH_MEMORY_BYTES = 2 * 1024 * 1024 * 1024  # address space of our own search process
SEARCH_TOGETHER_BYTES = 512 * 1024  # of files that grep searches as one text; then the next ones
PATTERN_CHARS = 10_000  # of a regular expression or glob from outside; a longer one is refused
PATTERN_MEMORY_BYTES = 8 * 1024 * 1024  # for one such pattern's automaton; a larger one is refused
IGNORE_FILE_BYTES = 256 * 1024  # of one .gitignore; a larger one is not applied
CONTENTS_CHARS = 512 * 1024  # of a file before and after in an edit's metadata; else its diff alone
DIFF_CHARS = 256 * 1024  # of a diff in a result; a longer one is left out
DIFF_LINES = 4_000  # a larger change is described by its counts, without a diff

TODOS_MAX = 50  # entries of a session's to-do list; a longer one is refused
TODO_BYTES = 500  # of each text of an entry; a longer one is refused

# --- fetching -----------------------------------------------------------------------------
FETCH_S = 30.0  # fetch, web_fetch and download in all, unless `timeout` says otherwise
FETCH_MAX_S = 120  # a longer `timeout` of fetch is cut to this (CW 7.1)
DOWNLOAD_S = 300.0  # a download without `timeout`; then nothing of it stays
DOWNLOAD_MAX_S = 600  # a longer `timeout` of download is cut to this (CW 7.1)
FETCH_URL_CHARS = 8_192  # a longer URL is refused
FETCH_REDIRECTS = 5  # followed, each vetted anew; one more is an error
FETCH_BODY_BYTES = 2 * 1024 * 1024  # of a page, unpacked; the rest is not read, and that is said
FETCH_RATIO = 100  # a body that unpacks to more than so many times its size is refused,
FETCH_RATIO_FREE_BYTES = 256 * 1024  # unless it is not more than this
FETCH_TEXT_BYTES = 100 * 1024  # of a page's text in one result (CW 7.5); the rest is said
FETCH_CONVERT_S = 20.0  # to make a page Markdown or text; then it is tried more simply, as long
FETCH_DEPTH = 500  # tags of a page inside each other; one that nests deeper is read as plain text
FETCH_MEMORY_BYTES = 512 * 1024 * 1024  # address space of that; then it is tried more simply
DOWNLOAD_BYTES = 1024 * 1024 * 1024  # a larger download is refused; nothing of it stays
DOWNLOAD_WRITE_BYTES = 1024 * 1024  # of a download held in memory before they are written
DOWNLOAD_CLEANUP_S = 2.0  # to remove what there is of a download that failed; then it stays

# --- client -------------------------------------------------------------------------------
CONNECT_TIMEOUT_S = 5.0  # to a server that should be there
REQUEST_TIMEOUT_S = 30.0  # one HTTP exchange without `wait`
RECONNECT_TIMEOUT_S = 60.0  # run: following is given up after this (contract 6)
AUTOSTART_READY_S = 15.0  # an auto-started server must listen within this; three tries
CANCEL_FOLLOW_S = 5.0  # after Ctrl-C the run is followed this long (contract 6)

# --- models -------------------------------------------------------------------------------
SCRIPT_FILE_BYTES = 16 * 1024 * 1024  # a larger script file is refused: 400 unknown_model
SCRIPT_TOKENS_MAX = 10_000_000  # `tokens` of one action; more is a mistake in the file
SCRIPT_WAIT_MAX_MS = 24 * 3600 * 1000  # any wait in a script; longer is a mistake in the file
SCRIPT_CHECKPOINT_PIECES = 32  # unpaced pieces between two checkpoints
MODEL_CANDIDATES = 8  # an ambiguous name lists so many; the rest is counted
MODEL_SUGGESTIONS = 3  # names like one that means nothing; further ones are not shown
MODEL_CONFIGS_KEPT = 64  # configurations and lists of models remembered; then all are read again
MODEL_LIST_S = 5.0  # to ask a provider for its models before a run; then the run goes without
MODEL_LIST_KEPT_S = 600.0  # such a list is asked for again after this
MODEL_LIST_RETRY_S = 10.0  # the same where there was no answer
SECRETS_KEPT = 1_000  # keys that were sent, remembered so that recordings mask them; the oldest go
TOOL_TEXT_CHARS = 1024 * 1024  # of tool calls written as text; more makes the answer malformed
PROVIDER_ERROR_CHARS = 4_000  # of such a message that are looked into; the rest says nothing
PROVIDER_WORDS_CHARS = 400  # of a provider's own error message in ours; the rest is cut
MODEL_CONNECT_S = 15.0  # to reach a provider, TLS included; then provider_unreachable
MODEL_LOCAL_CONNECT_S = 3.0  # the same for a server of this machine
MODEL_FIRST_BYTE_S = 600.0  # from the request to the first content (a local model may load first)
MODEL_SILENCE_S = 300.0  # between two pieces of content; then provider_silent
MODEL_CALL_S = 3600.0  # one answer in all; then provider_silent
MODEL_ACCESS_S = 60.0  # to expand a provider's key and address; then config_invalid
MODEL_GET_S = 10.0  # one GET, as for a list of models; then provider_silent
MODEL_GET_BYTES = 16 * 1024 * 1024  # a longer answer to it is malformed_answer
MODEL_FAILURE_BYTES = 64 * 1024  # of an error answer's body; the rest is not looked at
MODEL_FAILURE_S = 5.0  # to read that; then what came so far is all
MODEL_DRAIN_S = 0.02  # for the end of an answer that said it is done; then its connection is closed
HTTP_CLOSE_S = 1.0  # to let go of an answer; then its connection is left to the system
MODEL_EVENT_BYTES = 32 * 1024 * 1024  # one event or line of an answer; more is malformed_answer
HTTP_HEAD_BYTES = 64 * 1024  # the head of an answer; more is no HTTP
HTTP_SEND_BYTES = 256 * 1024  # of a request encrypted in one go; then others have their turn
HTTP_RECEIVE_BYTES = 64 * 1024  # read from a server's socket at once
HTTP_CONNECTIONS = 256  # requests of one owner at once; more wait, as long as they may take
HTTP_KEPT_CONNECTIONS = 16  # idle ones kept; the one unused longest is closed
HTTP_ADDRESS_S = 4.0  # a vetted address that is silent for so long; then the next one is tried
HTTP_ADDRESSES = 8  # of one host that are tried; further ones are vetted, too, and left alone
HTTP_LOOK_S = 2.0  # to resolve what a proxy will be asked for; then the proxy alone knows it
HTTP_KEEP_S = 30.0  # an idle one is not used again after this
MODEL_RETRIES = 4  # times one request is made again, whatever the reasons; then it has failed
MODEL_RETRY_FIRST_S = 5.0  # before the first retry (CW 5.6); doubled for each, with jitter
MODEL_RETRY_MAX_S = 60.0  # the longest such wait, and the longest a provider may ask for (CW 5.6)
MODEL_RETRY_TOTAL_S = 180.0  # all waits of one request together; then it has failed
MODEL_RETRY_WITHIN_S = 1800.0  # no retry begins later after the first attempt
DOCTOR_CONNECT_S = 10.0  # a checkup's connection, list of models, look at a server; then it failed
DOCTOR_ANSWER_S = 90.0  # one of its requests (a local model may load first); then provider_silent
DOCTOR_TOTAL_S = 240.0  # all checks of a model; then the rest is not made, and that is a failure
DOCTOR_TOKENS = 32  # the answer it asks for; a longer one is cut by the provider
DOCTOR_TOOL_TOKENS = 256  # the tool call it asks for, with what is thought before it
DOCTOR_OLLAMA_WINDOW = 32_768  # the window it recommends for Ollama, or the model's own if smaller
COMPLETION_S = 0.2  # a running server is asked for sessions while a word is completed; then none
DOCTOR_FREE_BYTES = 512 * 1024 * 1024  # less free space in the data directory is a warning
ANSWER_TOKENS_DEFAULT = 8_192  # of an answer where nobody names a limit and the protocol needs one
ANTHROPIC_IMAGE_CHARS = 5 * 1024 * 1024  # of base64; its API refuses a request with a larger image
ANSWER_TOKENS_CLAUDE = 32_000  # the same for a Claude since 4: all of them may answer so much
ANSWER_TOKENS_MIN = 4_096  # left to an answer when the window is nearly full; the provider decides
THINKING_TOKENS_MIN = 1_024  # Anthropic refuses a smaller budget; then there is no thinking
THINKING_TOKENS_LOW = 4_096  # a thought's budget by effort, and at most half of the whole answer
THINKING_TOKENS_MEDIUM = 10_240
THINKING_TOKENS_HIGH = 24_576
TOOL_SCHEMA_DEPTH = 32  # schemas inside each other; deeper ones tell a model nothing more
TOOL_SCHEMA_PLACES = 5_000  # schemas made of one tool's parameters; further ones say nothing
RESPONSES_OUTPUT_TOKENS_MIN = 16  # a smaller limit is refused; it is raised to this
GEMINI_BUDGET_PRO = 128  # the least that 2.5 Pro takes, which cannot do without thinking
GEMINI_BUDGETS = {  # thinking tokens by effort, of Gemini models that take no effort (2.5)
    "minimal": 512,
    "low": 2_048,
    "medium": 8_192,
    "high": 24_576,
}

# --- catalogue and local model servers ------------------------------------------------------
CATALOGUE_BYTES = 16 * 1024 * 1024  # a larger catalogue is refused, the present one stays
CATALOGUE_FETCH_S = 30.0  # to fetch one, in all; then the present one stays
CATALOGUE_PRICE_MAX = 100_000.0  # dollars per million tokens; more is a mistake in the file
CATALOGUE_TOKENS_MAX = 1_000_000_000  # of a window or a limit; more is a mistake in the file
CATALOGUE_CHANGES = 20  # models named as new, gone or changed by a refresh; the rest is counted
LOCAL_LIST_S = 0.3  # for a local server's list of models (contract 9); then it is passed over
LOCAL_DETAILS_S = 0.3  # more, for what its models can do; then that is unknown
LOCAL_DETAILS = 32  # models of one server that are asked about; the rest can do nobody knows what
LOCAL_ANSWER_BYTES = 4 * 1024 * 1024  # of one answer; with a longer one it is passed over
LOCAL_MODELS = 1_000  # of one server; the rest is left out
LOCAL_FOUND_S = 10.0  # what was found counts for so long; then it is looked for again
LOCAL_OWNER_S = 1.0  # to ask `lsof` whose a listening socket is (macOS); then it is nobody's

# --- JSON ---------------------------------------------------------------------------------
JSON_DEPTH_MAX = 64  # arrays and objects inside each other; deeper text is refused as not decodable
INT_MAX = 2**63 - 1  # what SQLite and every other reader can hold; a larger int is refused
DECODE_PLACES_MAX = 5  # wrong places a decode error names; it says that there are more
QUOTED_CHARS_MAX = 60  # of a wrong value or key quoted in an error; the rest is cut
CLIENT_CANCEL_REQUEST_S = 3.0  # after Ctrl-C: the cancel request itself; then leave without it
WS_CONNECT_TIMEOUT_S = 2.0  # one websocket handshake; then it is tried again
WS_CLOSE_TIMEOUT_S = 1.0  # saying goodbye on a websocket; then its stream is dropped
CLIENT_FRAME_BYTES = 16 * 1024 * 1024  # a larger frame from a server ends the connection
CLIENT_FRAMES_AHEAD = 16  # frames read before the consumer asks; then the server feels it
CLIENT_RECEIVE_BYTES = 64 * 1024  # read from a socket at once (libs.md 1.5: twice the rate)
CLIENT_OUTPUT_PIECE_BYTES = 1024 * 1024  # of a kept output asked for at once
CLIENT_ANSWER_BYTES = 256 * 1024 * 1024  # a larger HTTP answer is an error
SERVER_SILENT_S = 60.0  # three pings missed: the connection is dead and made again
BACKOFF_FIRST_S = 0.1  # wait before the second attempt; doubles, with jitter
BACKOFF_MAX_S = 5.0  # longest wait between two attempts
AUTOSTART_TRIES = 3  # then exit 4 with the server's own sentence
AUTOSTART_LOCK_S = 60.0  # waiting for somebody else who is starting a server; then exit 4
AUTOSTART_PROBE_S = 1.0  # one look whether a server answers
SERVER_OUTPUT_BYTES = 8 * 1024 * 1024  # a longer server.out is renamed at the next auto-start
STOP_WAIT_S = SHUTDOWN_TIMEOUT_S + WATCHDOG_EXTRA_S + 2.0  # `stop` waits this long for the end
ATTACHMENT_BYTES = 20 * 1024 * 1024  # all --file attachments together; more is exit 2
WAIT_SLICE_S = 25.0  # one GET with wait=; repeated until the run has ended

# --- configuration ------------------------------------------------------------------------
CONFIG_FILE_BYTES = 1024 * 1024  # a larger configuration file is refused (G14)
CONFIG_DEPTH = 64  # objects and arrays inside each other; deeper is refused (G14)
CONFIG_PATHS = 256  # context_paths of one untrusted file; further ones are inert (contract 7)
CONFIG_NAMES = 20  # names in one warning; the rest is counted
CONFIG_NAME_CHARS = 80  # of a key or path shown in a message; the rest is cut
CONFIG_COMMAND_S = 10.0  # one $(command); then its process group is killed: a ConfigError
CONFIG_COMMAND_BYTES = 64 * 1024  # of a $(command)'s output; more is a ConfigError
CONFIG_COMMAND_ERROR_CHARS = 200  # of what it wrote to stderr in that sentence; the rest is cut
CONFIG_COMMAND_LOOK_S = 0.02  # between two looks whether a shell that left its pipes open has ended
CONFIG_COMMANDS = 4  # commands in one value; one more is a ConfigError
CONFIG_LOCK_S = 5.0  # a configuration file somebody else is writing; then the change is refused
CONFIG_LOCK_LOOK_S = 0.02  # between two tries to lock it
CONFIG_WRITE_TRIES = 3  # times an editor may be faster than our change; then it is refused
CONFIG_LOOK_S = 2.0  # between two looks whether open workspaces' files changed (`config_changed`)

# --- edge of the server -------------------------------------------------------------------
HEADERS_BYTES = 16 * 1024  # request line and headers together; more is 431 and the connection ends
HEADERS_TIMEOUT_S = 10.0  # from the first byte of a request (or the accept) to its last header
BODY_TIMEOUT_S = 60.0  # from the headers to the end of the body; then 408
LINGER_S = 1.0  # after an answer to a body we did not read, how long we still take bytes in
LINGER_BYTES = 64 * 1024 * 1024  # the same bound by size; then the connection is cut
FILES_RESERVED = 64  # descriptors kept for tools and the store; then a new connection gets 503
FILES_RESERVED_SHARE = 2  # at most one in so many of those the system allows is kept
TURN_AWAY_S = 1.0  # its request is waited for; then it is closed without
TCP_ALIVE_AFTER_S = 60  # whole seconds of silence, then the kernel asks a TCP peer for a sign
TCP_ALIVE_EVERY_S = 10  # between its questions; after three without an answer the peer is gone
LISTEN_BACKLOG = 512  # connections the kernel keeps before we accept them; more are refused
SOCKET_PROBE_S = 0.5  # a socket that does not refuse within this belongs to a live server
AUTH_DELAY_FIRST_S = 0.2  # before the first 401 to a peer; doubled for each further one
AUTH_DELAY_MAX_S = 2.0  # the longest such delay; only the failing request waits
AUTH_FORGET_S = 60.0  # a peer that failed no more for this long starts again
AUTH_PEERS = 1_024  # failing peers remembered; the one longest silent is forgotten for a new one
TOKEN_BYTES = 32  # of randomness in a token we make
TOKEN_MIN_CHARS = 16  # a shorter token, from a file or the environment, is refused at start
ACCESS_LOG_BYTES = 8 * 1024 * 1024  # one access log file; then it is rotated
ACCESS_LOG_FILES = 4  # rotated files kept; the oldest goes
SERVER_LOG_BYTES = 8 * 1024 * 1024  # server.log is rotated at this size
SERVER_LOG_FILES = 3  # rotated files kept
ANCESTORS_MAX = 512  # steps from a peer process to the first one; beyond it the request is refused

# --- interpreter --------------------------------------------------------------------------
GC_YOUNG_ALLOCATIONS = 2_000  # more objects made than freed, then garbage is looked for
GC_MIDDLE_ROUNDS = 10  # looks at the young ones, then the middle ones are looked at, too
GC_OLD_ROUNDS = 10  # looks at the middle ones, then everything is
