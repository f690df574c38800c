-- G1, held by the database too: the ending is a run's last event, and an ended run stays ended.

CREATE TRIGGER nothing_after_the_ending BEFORE INSERT ON events
WHEN NEW.run_id IS NOT NULL AND EXISTS (
    SELECT 1 FROM events WHERE run_id = NEW.run_id AND kind = 'run_complete'
)
BEGIN
    SELECT RAISE(ABORT, 'the run has ended already');
END;

CREATE TRIGGER an_ended_run_stays_ended BEFORE UPDATE OF state ON runs
WHEN OLD.state = 'finished' AND NEW.state <> 'finished'
BEGIN
    SELECT RAISE(ABORT, 'an ended run cannot go on');
END;
