-- False for every UPDATE of our own functions: they write rows that fit.
create or replace trigger reproq_2_coerce_update
before update on task_runs
for each row
when ((new.status = 'RUNNING') <> (new.lease_token is not null)
      or (new.status = 'RUNNING') <> (new.leased_until is not null)
      or new.status <> 'RUNNING' and new.concurrency_slot is not null
      or new.status = 'RUNNING' and new.lease_token = old.lease_token and new.leased_by is distinct from old.leased_by
      or (new.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED')) <> (new.finished_at is not null)
      or new.status = 'READY' and (new.failed_at is not null or new.finished_at is not null)
      or new.status = 'READY' and old.status in ('FAILED', 'CANCELLED') and new.last_token is not distinct from old.last_token
      or new.status = 'READY' and old.status <> 'READY' and new.attempts >= new.max_attempts
      or new.blocked_on <> '' and (
          new.status <> 'READY'
          or new.lock_key is distinct from old.lock_key or new.concurrency_key is distinct from old.concurrency_key
          or new.run_after is distinct from old.run_after or new.enqueued_at <> old.enqueued_at
          or (new.queue_name, new.priority, new.concurrency_limit)
             <> (old.queue_name, old.priority, old.concurrency_limit)))
execute function _reproq_coerce_foreign_write();
