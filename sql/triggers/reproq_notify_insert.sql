create or replace trigger reproq_ring_insert
after insert on task_runs
referencing new table as written
for each statement execute function reproq_ring_on_insert();
