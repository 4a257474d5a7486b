create or replace trigger reproq_1_path
before insert or update of spec_json, task_path on task_runs
for each row execute function _reproq_task_path();
