create or replace function reproq_schedule_fire(
    p_name text, p_cron_expr text, p_time_zone text, p_since timestamptz,
    p_occurrences timestamptz[], p_next_run_at timestamptz
) returns table (scheduled_at timestamptz, result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
#variable_conflict use_column
-- Runs the due occurrences of a schedule, as a beat computed them from cron_expr after p_since, and plans the next one
-- (null: never again). One row per occurrence: enqueued, missed (the misfire policy leaves it out), overlap (an
-- earlier run has not ended), already (it was enqueued before). One row `planned` when none was due. No row when
-- another beat or a writer was faster: look again. Each (schedule, occurrence) happens once, by the primary key of
-- periodic_occurrences. Occurrences less than a minute old were not missed.
-- Locks and writes the schedule's row (skip locked: a beat never waits for another), then enqueues; deletes old
-- occurrences.
declare
    v_schedule periodic_tasks%rowtype;
    v_now timestamptz := reproq_now();
    v_due timestamptz[];
    v_wanted timestamptz[];
    v_at timestamptz;
begin
    select p.* into v_schedule from periodic_tasks p where p.name = p_name for no key update skip locked;
    if not found or not v_schedule.enabled
        or (v_schedule.cron_expr, v_schedule.time_zone) is distinct from (p_cron_expr, p_time_zone)
        or _reproq_schedule_since(v_schedule) is distinct from p_since then
        return;
    end if;
    v_due := array(
        select distinct o.at from unnest(p_occurrences) as o (at) where o.at > p_since and o.at <= v_now order by o.at);
    v_wanted := case v_schedule.misfire
        when 'skip' then array(select o.at from unnest(v_due) as o (at) where o.at > v_now - interval '1 minute')
        when 'one' then v_due[cardinality(v_due):]
        else v_due[cardinality(v_due) - 99:] end;
    foreach v_at in array v_due loop
        if v_at <> all (v_wanted) then
            return query select v_at, null::bigint, 'missed'::text;
        else
            return query select v_at, f.result_id, f.answer from _reproq_enqueue_occurrence(v_schedule, v_at) f;
        end if;
    end loop;
    if v_due = '{}' then
        return query select null::timestamptz, null::bigint, 'planned'::text;
    end if;
    -- In two steps, so that the trigger on periodic_tasks can tell a beat's plan from any other UPDATE.
    update periodic_tasks p set planned = false where p.name = p_name and p.planned;
    update periodic_tasks p
    set planned = true, next_run_at = coalesce(p_next_run_at, '9999-12-30 00:00+00'), updated_at = v_now,
        last_run_at = coalesce(v_due[cardinality(v_due)], p.last_run_at)
    where p.name = p_name;
    -- Old occurrences go: those beyond the latest 100 and 30 days, at most 200 a call. They lie before the last run, so
    -- they cannot happen again.
    delete from periodic_occurrences o
    where o.name = p_name and o.scheduled_at = any (array(
        select f.scheduled_at from periodic_occurrences f
        where f.name = p_name and f.scheduled_at < v_now - interval '30 days'
          and f.scheduled_at < (
              select k.scheduled_at from periodic_occurrences k
              where k.name = p_name order by k.scheduled_at desc offset 99 limit 1)
        order by f.scheduled_at
        limit 200));
end
$$;

revoke execute on function reproq_schedule_fire(text, text, text, timestamptz, timestamptz[], timestamptz) from public;
comment on function reproq_schedule_fire(text, text, text, timestamptz, timestamptz[], timestamptz) is
    'Enqueues the due occurrences of a schedule, each once, and plans the next: enqueued, missed, overlap or already for each, or planned. @0.1.0';
