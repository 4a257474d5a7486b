create or replace trigger reproq_ring_update
after update on task_runs
referencing old table as replaced new table as written
for each statement execute function reproq_ring_on_update();
