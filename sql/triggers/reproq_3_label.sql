create or replace trigger reproq_3_label
before insert on task_runs
for each row execute function _reproq_task_label();
