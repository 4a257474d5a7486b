-- READY rows that say nothing else are as they should be.
create or replace trigger reproq_2_normalise_insert
before insert on task_runs
for each row
when (new.status <> 'READY' or new.enqueued_at > clock_timestamp()
      or new.lease_token is not null or new.leased_until is not null or new.concurrency_slot is not null
      or new.finished_at is not null or new.failed_at is not null or new.parked_on <> ''
      or new.attempts >= new.max_attempts)
execute function reproq_task_normalise();
