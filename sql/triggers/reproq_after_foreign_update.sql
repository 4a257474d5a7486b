-- False for every UPDATE of our own functions: whatever ends, returns or retries a task changes last_token.
create or replace trigger reproq_after_foreign_update
after update on task_runs
for each row
when (old.status <> new.status and new.last_token is not distinct from old.last_token
      and (old.status = 'RUNNING'
           or new.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED')
           or old.status in ('FAILED', 'CANCELLED') and new.status = 'READY'))
execute function _reproq_after_foreign_update();
