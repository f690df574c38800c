-- A request to a person. ending is NULL while it waits, and set once.
CREATE TABLE asks (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    ending TEXT,
    decided_by TEXT NOT NULL,
    decided_at_ms INTEGER,
    data BLOB NOT NULL
);
CREATE INDEX asks_pending ON asks (workspace_id, n) WHERE ending IS NULL;
CREATE INDEX asks_by_session ON asks (session_id);
CREATE TRIGGER an_ask_ends_once BEFORE UPDATE ON asks WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'this request has ended already');
END;

-- What "allow for this session" allows.
CREATE TABLE grants (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    tool_name TEXT NOT NULL,
    action TEXT NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (session_id, tool_name, action, path)
) WITHOUT ROWID;
