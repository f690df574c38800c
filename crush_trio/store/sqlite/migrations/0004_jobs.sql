-- Commands that may outlive their run. listed = 0: still in the foreground, known to recovery only.
CREATE TABLE jobs (
    workspace_id TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    id TEXT NOT NULL,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    listed INTEGER NOT NULL,
    record BLOB NOT NULL,
    processes BLOB NOT NULL,
    PRIMARY KEY (workspace_id, number)
) WITHOUT ROWID;
CREATE INDEX jobs_by_session ON jobs (session_id);
CREATE INDEX jobs_running ON jobs (workspace_id, number) WHERE state = 'running';

-- Survives the purge of its workspace, so that no number is ever given twice.
CREATE TABLE job_counters (
    workspace_id TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) WITHOUT ROWID;
