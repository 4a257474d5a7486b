create or replace trigger reproq_missed_dependent
after insert on task_runs
for each row
when (new.status = 'WAITING' and new.parent_id is not null)
execute function _reproq_missed_dependent();
