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

# --- shutdown (G11) -----------------------------------------------------------------------
SHUTDOWN_TIMEOUT_S = 10.0  # whole shutdown; the watchdog exits 70 one second later
SHUTDOWN_RUNS_S = 5.0
SHUTDOWN_SUBSCRIBERS_S = 1.0
SHUTDOWN_HTTP_S = 1.0
SHUTDOWN_TOOLS_S = 1.0
SHUTDOWN_STORE_S = 2.0
WATCHDOG_EXTRA_S = 1.0

# --- store --------------------------------------------------------------------------------
BUSY_TIMEOUT_S = 5.0  # a locked database is waited for this long (contract 3)
GROUP_COMMIT_MAX = 256  # commits joined into one transaction; the rest wait for the next
EVENT_RETENTION_S = 7 * 24 * 3600.0  # older events go, except an open run's (G8)
EVENT_RETENTION_COUNT = 200_000  # per workspace; more go, except an open run's (G8)
EVENT_PAGE = 500  # events read from the table at once
READER_THREADS = 4  # concurrent store reads; more wait
TEXT_CHECKPOINT_S = 1.0  # open text is written to its row at most this often (G8)

# --- feed and websocket -------------------------------------------------------------------
FEED_ENTRIES = 4_096  # a reader further behind goes on from the table (G8)
FEED_BYTES = 8 * 1024 * 1024  # the same bound by size
FRAME_JOIN_BYTES = 64 * 1024  # events joined into one websocket frame (contract 4)
FRAME_OUT_BYTES = 512 * 1024  # longer strings are cut and named in `truncated` (contract 4)
FRAME_IN_BYTES = 64 * 1024  # a larger frame from a client closes its socket (contract 4)
SNAPSHOT_INTERVAL_S = 0.033  # detail=snapshot: present state at most this often (contract 4)
PING_INTERVAL_S = 20.0  # the server's application ping (contract 4)
PEER_SILENT_S = 60.0  # a peer that ever pinged is closed with 4408 after this (contract 4)
SEND_BLOCKED_S = 10.0  # a blocked send closes the connection (contract 4)
TOOL_OUTPUT_LIVE_BYTES = 256 * 1024  # tool_output frames per call; the rest is only in the result

# --- HTTP ---------------------------------------------------------------------------------
BODY_AGENT_BYTES = 32 * 1024 * 1024  # agent and grant bodies; larger is 413 (contract 3)
BODY_BYTES = 1024 * 1024  # all other bodies; larger is 413
WAIT_MAX_S = 300.0  # GET /v1/runs/{r}?wait=S
LIST_LIMIT_DEFAULT = 50
LIST_LIMIT_MAX = 500  # a larger `limit` is 400
SNAPSHOT_MESSAGES_DEFAULT = 200
KEEP_ALIVE_S = 60.0  # an idle connection is closed after this

# --- workspaces ---------------------------------------------------------------------------
IDLE_TIMEOUT_S = 600.0  # an unused workspace closes (contract 3)
IDLE_EXIT_S = 600.0  # an auto-started server with nothing to do exits (contract 6)

# --- turn ---------------------------------------------------------------------------------
MAX_STEPS = 200  # steps of one run when the prompt names no limit; then outcome limited
LOOP_WINDOW_STEPS = 10  # loop breaker looks at this many steps (R66)
LOOP_REPEATS = 5  # the same call and result more often than this ends the run (R66)
CONTEXT_FILE_BYTES = 64 * 1024  # of each context file; the rest is cut and said so
CONTEXT_FILES_BYTES = 256 * 1024  # of all context files together

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

# --- JSON ---------------------------------------------------------------------------------
JSON_DEPTH_MAX = 64  # arrays and objects inside each other; deeper text is refused as not decodable
INT_MAX = 2**63 - 1  # what SQLite and every other reader can hold; a larger int is refused
DECODE_PLACES_MAX = 5  # wrong places a decode error names; it says that there are more
QUOTED_CHARS_MAX = 60  # of a wrong value or key quoted in an error; the rest is cut
