create or replace function _reproq_schedule_written() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Before something else than a beat (Django's sync, SQL) changes a schedule. No due run is lost or repeated:
--   only next_run_at written: it keeps what the beat planned
--   last_run_at written (another program's beat): planned again, from that run on
--   switched off: the plan is dropped unless a run is due
--   switched on again, or cron_expr or time_zone changed: a run that was due is enqueued now, by the old ones;
--   then planned again, from now on
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
                perform _reproq_enqueue_occurrence(old, old.next_run_at);
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

revoke execute on function _reproq_schedule_written() from public;
comment on function _reproq_schedule_written() is 'Trigger: a change of a schedule neither loses nor repeats a due run. @0.1.0';
