create or replace trigger reproq_schedule_1_made
before insert on periodic_tasks
for each row execute function reproq_schedule_made();
