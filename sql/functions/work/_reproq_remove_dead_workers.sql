create or replace function _reproq_remove_dead_workers(p_limit integer) returns void
language plpgsql volatile parallel unsafe
as $$
-- Removes up to p_limit workers that were not seen for seven days and hold no lease from the registry.
-- Locks: their rows of reproq_workers (skip locked).
declare
    v_until timestamptz := reproq_now() - interval '7 days';
    v_dead text[];
begin
    v_dead := array(
        select w.worker_id from reproq_workers w
        where w.last_seen_at < v_until
        limit p_limit
        for update skip locked);
    if v_dead <> '{}' then
        delete from reproq_workers w
        where w.worker_id = any (v_dead)
          and w.worker_id <> all (array(
              select t.leased_by from task_runs t
              where t.leased_until is not null and t.leased_by = any (v_dead)
              order by t.leased_until));
    end if;
end
$$;

revoke execute on function _reproq_remove_dead_workers(integer) from public;
comment on function _reproq_remove_dead_workers(integer) is
    'Removes workers not seen for seven days from the registry; part of reproq_reclaim. @0.1.0';
