-- What "allow for this session" allows, now down to the command, and who allowed it. Of the older
-- ones only those for files are kept: one for a command covered every command of its directory.
ALTER TABLE grants RENAME TO wide_grants;
CREATE TABLE grants (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    tool_name TEXT NOT NULL,
    action TEXT NOT NULL,
    path TEXT NOT NULL,
    scope TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    granted_at_ms INTEGER NOT NULL,
    PRIMARY KEY (session_id, tool_name, action, path, scope)
) WITHOUT ROWID;
INSERT INTO grants SELECT session_id, tool_name, action, path, '', '', 0 FROM wide_grants
    WHERE tool_name IN ('write', 'edit', 'multiedit', 'view', 'ls', 'glob', 'grep');
DROP TABLE wide_grants;

-- How long a request waits is the configuration's at the time it was made.
ALTER TABLE asks ADD COLUMN deadline_s REAL NOT NULL DEFAULT 600;
