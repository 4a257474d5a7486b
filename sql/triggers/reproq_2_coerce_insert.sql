-- Plain READY rows need nothing.
create or replace trigger reproq_2_coerce_insert
before insert on task_runs
for each row
when (new.status <> 'READY' or new.enqueued_at > clock_timestamp()
      or new.lease_token is not null or new.leased_until is not null or new.concurrency_slot is not null
      or new.finished_at is not null or new.failed_at is not null or new.blocked_on <> ''
      or new.attempts >= new.max_attempts)
execute function _reproq_coerce_foreign_write();
