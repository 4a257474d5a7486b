-- Tasks without a key cost nothing here.
create or replace trigger reproq_4_block
before insert on task_runs
for each row
when (new.status = 'READY' and (new.lock_key <> '' or new.concurrency_key <> ''))
execute function _reproq_block_on_insert();
