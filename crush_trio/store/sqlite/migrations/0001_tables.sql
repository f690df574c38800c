-- One database for all workspaces of a server.
-- Objects are kept as the JSON of the protocol; a column exists where a query needs it.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Survives the purge of its workspace, so that no number is ever given twice.
-- oldest: retention has removed nothing from this event on.
CREATE TABLE counters (
    workspace_id TEXT PRIMARY KEY,
    last_seq INTEGER NOT NULL DEFAULT 0,
    oldest INTEGER NOT NULL DEFAULT 1,
    last_accept INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE workspaces (
    id TEXT PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL
);

CREATE TABLE sessions (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    parent_id TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    message_count INTEGER NOT NULL DEFAULT 0,
    data BLOB NOT NULL
);
CREATE INDEX sessions_by_time ON sessions (workspace_id, updated_at, n);
CREATE INDEX sessions_by_parent ON sessions (parent_id) WHERE parent_id <> '';

CREATE TABLE messages (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    accept_seq INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    role TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX messages_by_place ON messages (session_id, accept_seq, ordinal, n);

-- session_id has no foreign key: a run outlives its session as a tombstone.
-- born_seq: no event of this run has a smaller seq.
-- turn: its place among the waiting runs if it was moved, else NULL (then accept_seq).
CREATE TABLE runs (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    session_id TEXT NOT NULL,
    accept_seq INTEGER NOT NULL,
    state TEXT NOT NULL,
    born_seq INTEGER NOT NULL,
    digest TEXT NOT NULL,
    principal TEXT NOT NULL,
    record BLOB NOT NULL,
    receipt BLOB NOT NULL,
    processes BLOB NOT NULL,
    turn REAL
);
CREATE INDEX runs_open ON runs (workspace_id, accept_seq) WHERE state <> 'finished';
CREATE INDEX runs_by_session ON runs (session_id, n);
CREATE INDEX runs_by_workspace ON runs (workspace_id, n);

-- Apart from runs, because it may hold attachments and hardly ever changes.
CREATE TABLE run_requests (
    run_id TEXT PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    data BLOB NOT NULL
);

CREATE TABLE files (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    version INTEGER NOT NULL,
    content TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (session_id, path, version)
);

CREATE TABLE reads (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    PRIMARY KEY (session_id, path)
) WITHOUT ROWID;

-- session_ids is a JSON array: the event's session and that session's ancestors.
CREATE TABLE events (
    workspace_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    ts_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    session_id TEXT,
    session_ids TEXT NOT NULL,
    run_id TEXT,
    data BLOB NOT NULL,
    PRIMARY KEY (workspace_id, seq)
) WITHOUT ROWID;
CREATE INDEX events_by_session ON events (workspace_id, session_id) WHERE session_id IS NOT NULL;
CREATE UNIQUE INDEX one_ending_per_run ON events (run_id) WHERE kind = 'run_complete';
