create or replace trigger reproq_schedule_1_written
before update on periodic_tasks
for each row
when (old.planned and new.planned
      and (new.cron_expr, new.time_zone, new.next_run_at) <> (old.cron_expr, old.time_zone, old.next_run_at)
      or new.enabled and not old.enabled)
execute function reproq_schedule_written();
