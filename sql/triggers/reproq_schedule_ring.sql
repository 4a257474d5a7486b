create or replace trigger reproq_schedule_ring
after insert or update on periodic_tasks
for each row
when (not new.planned and new.enabled)
execute function reproq_ring_on_schedule();
