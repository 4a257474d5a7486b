create or replace function reproq_schedule_written() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Before a schedule is changed by anybody but a beat (Django's sync, SQL), so that no due run is lost or repeated:
--   only next_run_at written: it keeps what the beat planned
--   last_run_at written (another program's beat): planned anew, from that run on
--   switched off: the plan is dropped unless a run is due
--   switched on again, or cron_expr or time_zone changed: the run that was due (then) is enqueued now, under the old ones;
--   then planned anew, from now on
-- A run that was due and cannot be enqueued is reported as a warning; the change goes on. Runs of an expression that no
-- beat has read before it is changed again are not known here.
declare
    v_now timestamptz := reproq_now();
begin
    if old.enabled and not new.enabled then
        new.planned := old.planned and old.next_run_at <= v_now;
        new.next_run_at := case when new.planned then old.next_run_at else new.next_run_at end;
    elsif new.enabled and not old.enabled or (new.cron_expr, new.time_zone) <> (old.cron_expr, old.time_zone) then
        if old.planned and new.enabled and old.next_run_at <= v_now
            and (old.misfire <> 'skip' or old.next_run_at > v_now - interval '1 minute') then
            begin
                perform reproq_enqueue_occurrence(old, old.next_run_at);
            exception when sqlstate 'RQ002' or integrity_constraint_violation then
                raise warning 'schedule %: its due run could not be enqueued: %', old.name, sqlerrm;
            end;
        end if;
        new.last_run_at := v_now;
        new.planned := false;
    elsif new.last_run_at is distinct from old.last_run_at then
        new.last_run_at := case when new.last_run_at > v_now then v_now else new.last_run_at end;
        new.planned := false;
    elsif old.planned and new.planned then
        new.next_run_at := old.next_run_at;
    end if;
    return new;
end
$$;

revoke execute on function reproq_schedule_written() from public;
comment on function reproq_schedule_written() is 'Trigger: whoever changes a schedule, no due run is lost or repeated. @v1';
